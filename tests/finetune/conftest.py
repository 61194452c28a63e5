"""What tests of labelled stores share."""

import numpy as np
import pytest

import tiny


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """A training store of 36 + 4 unlabelled rows and a test store of 15; ids tell the class."""
    folder = tmp_path_factory.mktemp("stores")
    train_labels = np.array([row % 3 for row in range(36)] + [-1] * 4)
    test_labels = np.array([row % 3 for row in range(15)])
    tiny.make_store(folder / "train", tiny.striped_ids(train_labels, tiny.GRID, seed=1), labels=train_labels)
    tiny.make_store(folder / "test", tiny.striped_ids(test_labels, tiny.GRID, seed=2), labels=test_labels)
    return folder


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path / "labels.csv"

    return write
