"""Operations of a step, and the share of a device's peak."""

import pytest
import torch

from seitpp.mtm.cost import training_flops
from seitpp.mtm.masking import MaskConfig
from seitpp.mtm.model import MaskedTokenModel, ModelConfig
from seitpp.runtime.devices import make_accelerator
from seitpp.training.speed import Speed, count_flops, peak_flops


@pytest.mark.parametrize(
    ("device", "precision", "teraflops"),
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H200 NVL", "bf16", 835),
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA A100-SXM4-80GB", "fp16", 312),
        ("NVIDIA A100-SXM4-80GB", "no", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16", None),  # a seventh of it
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA RTX A1000", "bf16", None),  # no A100
        ("NVIDIA GeForce RTX 3090", "fp16", 71),
        ("NVIDIA GeForce RTX 3090 Ti", "fp16", None),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),  # its tensor cores do not take it
        ("cpu", "bf16", None),
    ],
)
def test_the_peak_is_that_of_the_device_and_precision_or_unknown(device, precision, teraflops):
    assert peak_flops(device, precision) == (teraflops and teraflops * 1e12)


def test_the_share_of_the_peak_is_told_where_it_is_known():
    speed = Speed(make_accelerator("no"), 2e12)
    assert speed.of(300, 2.0) == ({"images_per_second": 150.0}, "150 images/s")
    speed.peak = 600e12
    assert speed.of(300, 2.0) == ({"images_per_second": 150.0, "mfu": 0.5}, "150 images/s  MFU 50%")


def test_operations_are_counted_by_hand():
    weight = torch.empty(5, 7, device="meta", requires_grad=True)
    assert count_flops(lambda: (torch.empty(3, 5, device="meta") @ weight).sum().backward()) == 2 * 2 * 3 * 5 * 7


def test_a_step_of_vit_base_costs_what_the_formula_says():
    c, k, width, narrow = 32, 391, 768, 512
    model = MaskedTokenModel(ModelConfig(), view=(28, 28), codebook_size=k, embedding_dim=c)
    masks = MaskConfig()
    patches, visible = 196, 196 - 79
    masked = next(count for count in range(79, 197) if count / 196 >= 0.567)  # the median ratio, by the normal's table
    encoder = 12 * (12 * width**2 * (visible + 1) + 2 * width * (visible + 1) ** 2) + patches * 4 * c * width
    decoder = 4 * (12 * narrow**2 * (patches + 1) + 2 * narrow * (patches + 1) ** 2) + (visible + 1) * width * narrow
    head = masked * narrow * 4 * c + masked * 4 * c * k
    assert training_flops(model, masks) == pytest.approx(3 * 2 * (encoder + decoder + head), rel=0.02)
