"""What all tests share: one thread, reproducible examples, and the tiny world of `tiny.py` as fixtures."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

import tiny

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 3 classes of 16 x 24 images, 13 + 9 + 8 of them."""
    return tiny.make_images(tmp_path_factory.mktemp("images") / "train", {"ant": 13, "bee": 9, "cow": 8}, seed=1)


@pytest.fixture(scope="session")
def test_images(tmp_path_factory):
    """The same classes, 5 + 4 + 3 other images."""
    return tiny.make_images(tmp_path_factory.mktemp("images") / "test", {"ant": 5, "bee": 4, "cow": 3}, seed=2)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """An untrained tokenizer of 16 x 24 pixels to 4 x 6 tokens, K = 37 random codes."""
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def own_accelerator():
    """A test that chooses a precision of its own, and leaves it to no other."""
    tiny.forget_accelerator()
    yield
    tiny.forget_accelerator()


@pytest.fixture
def unprivileged():
    """The rights of an ordinary user for the test, also where root runs it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
