"""bf16 and compiled models learn what float32 and plain ones do."""

import pytest
import torch

from seitpp.mtm.masking import MaskConfig, sample_masks
from seitpp.mtm.model import MaskedTokenModel
from seitpp.runtime.devices import compile_in_place
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws
from small_runs import CODES, DIM, VIEW, make_config, make_model, run

SHALLOW = make_model(depth=1)


def test_bf16_loses_what_float32_does_within_two_percent_over_fifty_steps(world, tmp_path):
    whole, half = (
        run(make_config(world, tmp_path / precision, mixed_precision=precision, steps=50))
        for precision in ("no", "bf16")
    )
    assert len(whole) == len(half) == 50
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole
    assert whole[-1] < whole[0] - 0.5


# Compiled


@pytest.fixture
def mask(device):
    """The papers' ratios; for a CPU, which compiles each shape for minutes, always the same."""
    return MaskConfig() if device.type == "cuda" else MaskConfig(mask_ratio_mean=0.6, mask_ratio_std=1e-6)


@pytest.mark.usefixtures("proper_float32")
def test_a_compiled_run_has_the_losses_of_a_plain_one(world, mask, tmp_path):
    plain, compiled = (
        run(
            make_config(
                world, tmp_path / str(compile), compile=compile, mask=mask, model=SHALLOW, mixed_precision="no", steps=8
            )
        )
        for compile in (False, True)
    )  # fmt: skip
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


@pytest.mark.usefixtures("proper_float32")
def test_a_compiled_pass_has_the_gradients_of_a_plain_one(device, world, mask):
    torch.manual_seed(0)
    model = MaskedTokenModel(SHALLOW, view=VIEW, codebook_size=CODES, embedding_dim=DIM).to(device)
    batch = TrainingBatches(TokenStore(world / "train"), 16, seed=0, device=device)(0)
    masks = sample_masks(mask, Draws(0, 0, batch.positions), 63)

    def gradients():
        model.zero_grad()
        loss, _ = model(centre(batch.ids, VIEW), masks)
        loss.backward()
        return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    loss, plain = gradients()
    compile_in_place(model)
    same_loss, compiled = gradients()
    torch.testing.assert_close(same_loss, loss, rtol=1e-4, atol=0.0)
    for name, gradient in plain.items():
        difference = (compiled[name] - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert difference < 1e-3, name
