"""What tests of the report share."""

import pytest

from report_runs import write_demo


@pytest.fixture
def demo(tmp_path):
    """A whole demo, see `write_demo`."""
    return write_demo(tmp_path / "demo")
