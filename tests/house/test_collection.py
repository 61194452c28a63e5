"""The names of the tests are the same everywhere: pytest-xdist refuses to start where two workers differ in one."""

import os
import subprocess
import sys

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
def test_names_do_not_depend_on_hashes_the_clock_folders_or_the_machine(request, tmp_path):
    """The tests of this session, which are all of them in a whole run, are found by the same names elsewhere."""
    elsewhere = collecting("-p", "another_day", seed=2, tmp=tmp_path / "another")
    output, _ = elsewhere.communicate(timeout=300)
    assert elsewhere.returncode == 0, output[-3000:]
    found = {line for line in output.splitlines() if "::" in line}
    assert len(found) > 1000
    assert sorted({item.nodeid for item in request.session.items} - found) == []
