"""What the tests for a GPU share: the device, Accelerate's choices forgotten, a small world of stores and networks.

`make test` leaves this folder out (pyproject.toml); `make test-gpu` runs it. With SEITPP_TEST_DEVICE=cpu the same tests
rehearse on a CPU, but for what only a GPU has.
"""

import os

import pytest
import torch

import small_runs
import tiny

REHEARSAL = os.environ.get("SEITPP_TEST_DEVICE") == "cpu"
if REHEARSAL:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the stages would take a GPU wherever they see one


@pytest.fixture(scope="session", autouse=True)
def device():
    """The device that all stages choose by themselves here."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if REHEARSAL:
        return torch.device("cpu")
    pytest.skip("PyTorch sees no CUDA GPU here (SEITPP_TEST_DEVICE=cpu rehearses on the CPU)")


@pytest.fixture
def cuda(device):
    """The GPU, for what a CPU can't rehearse."""
    if device.type != "cuda":
        pytest.skip("only a GPU can show this")
    return device


@pytest.fixture
def proper_float32(monkeypatch):
    """Convolutions of float32 numbers in float32, for comparisons; by itself a GPU makes them in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def afresh(device):
    """Leave no test the precision, the process group or the compiled code of another."""
    yield
    tiny.forget_accelerator()
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def world(device, tmp_path_factory):
    """Stores `train` and `test` of 9-bit ids and a TokenAdapt with random weights."""
    return small_runs.make_world(tmp_path_factory.mktemp("world"))
