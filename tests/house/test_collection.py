"""The names of the tests are the same everywhere: pytest-xdist refuses to start where two workers differ in one."""

import os
import subprocess
import sys
from itertools import zip_longest

import pytest

import tiny


def collecting(*options, seed, tmp):
    """Start a collection of all tests in a process of its own; its output is one node id a line."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    paths = os.pathsep.join([str(tiny.TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    tmp.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, tiny.TESTS],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tiny.ROOT,
        env={**own, "PYTHONHASHSEED": str(seed), "PYTHONPATH": paths, "TMPDIR": str(tmp)},
    )  # fmt: skip


@pytest.mark.slow
def test_names_do_not_depend_on_hashes_the_clock_folders_or_the_machine(tmp_path):
    here = collecting(seed=1, tmp=tmp_path / "a")
    elsewhere = collecting("-p", "another_day", seed=2, tmp=tmp_path / "another")
    ids = []
    for process in (here, elsewhere):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]
        ids.append([line for line in output.splitlines() if "::" in line])
    assert len(ids[0]) > 1000
    assert [(a, b) for a, b in zip_longest(*ids) if a != b] == []
