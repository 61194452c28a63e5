"""Configurations refuse what cannot be, in one line that names class and field, before anything is opened."""

import re

import pytest

import tiny
from seitpp.finetune.import_model import ImportModelConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.masking import MaskConfig
from seitpp.mtm.model import DecoderConfig, ModelConfig
from seitpp.mtm.reconstruct import ReconstructConfig
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenadapt.geometry import GeometryConfig
from seitpp.training.config import TrainConfig

NEEDED = {
    StageConfig: {"output_dir": "out"},
    TrainConfig: {"output_dir": "out"},
    FinetuneConfig: {"output_dir": "out", "store": "train", "eval_store": "test"},
    ImportModelConfig: {"output_dir": "out", "kind": "mtm", "checkpoint": "it.pth", "store": "train"},
    ReconstructConfig: {"store": "train", "weights": "mtm", "tokenizer": "vq", "out": "out.png"},
}
NAN = float("nan")

SHARE = "must lie in [0, 1)"
SEED = "must lie in [0, 2^63)"
POSITIVE = "must be above 0"
NOT_NEGATIVE = "must not be below 0"
COUNT = "must be at least 1"

REFUSED = [
    (StageConfig, {"seed": -1}, SEED),
    (StageConfig, {"seed": 2**70}, SEED),
    (TrainConfig, {"seed": 2**63}, SEED),
    (ImportModelConfig, {"seed": -1}, SEED),
    (ReconstructConfig, {"seed": 2**70}, SEED),
    (TrainConfig, {"lr": 0.0}, POSITIVE),
    (TrainConfig, {"blr": -1e-3}, POSITIVE),
    (TrainConfig, {"min_lr": -1e-6}, "must lie in [0, lr]"),
    (TrainConfig, {"min_lr": 2e-3, "lr": 1e-3}, "must lie in [0, lr]"),
    (TrainConfig, {"weight_decay": -1.0}, NOT_NEGATIVE),
    (TrainConfig, {"weight_decay": NAN}, NOT_NEGATIVE),
    (TrainConfig, {"betas": (1.5, 2.0)}, SHARE),
    (TrainConfig, {"betas": (0.9, 1.0)}, SHARE),
    (TrainConfig, {"betas": (-0.1, 0.9)}, SHARE),
    (TrainConfig, {"clip_grad": 0.0}, POSITIVE),
    (TrainConfig, {"clip_grad": -3.0}, POSITIVE),
    (EncoderConfig, {"heads": 0}, COUNT),
    (EncoderConfig, {"width": 0}, COUNT),
    (EncoderConfig, {"width": -12}, COUNT),
    (EncoderConfig, {"depth": -1}, COUNT),
    (EncoderConfig, {"depth": 0}, COUNT),
    (EncoderConfig, {"patch_size": 0}, COUNT),
    (EncoderConfig, {"width": 30, "heads": 3}, "must be a multiple of 4 and of heads = 3"),
    (EncoderConfig, {"width": 28, "heads": 3}, "must be a multiple of 4 and of heads = 3"),
    (EncoderConfig, {"token_dropout": -1.0}, SHARE),
    (EncoderConfig, {"token_dropout": 1.5}, SHARE),
    (EncoderConfig, {"token_dropout": 1.0}, SHARE),
    (EncoderConfig, {"embedding_std": -1.0}, POSITIVE),
    (EncoderConfig, {"embedding_std": 0.0}, POSITIVE),
    (DecoderConfig, {"heads": 0}, COUNT),
    (DecoderConfig, {"width": 0}, COUNT),
    (DecoderConfig, {"depth": -1}, COUNT),
    (DecoderConfig, {"width": 20, "heads": 3}, "must be a multiple of heads = 3"),
    (DecoderConfig, {"dropout": -0.1}, SHARE),
    (DecoderConfig, {"dropout": 1.0}, SHARE),
    (ModelConfig, {"label_smoothing": 2.0}, SHARE),
    (ModelConfig, {"label_smoothing": 1.0}, SHARE),
    (ModelConfig, {"label_smoothing": -0.1}, SHARE),
    (FinetuneConfig, {"label_smoothing": 2.0}, SHARE),
    (FinetuneConfig, {"drop_path": 1.0}, SHARE),
    (FinetuneConfig, {"drop_path": -0.1}, SHARE),
    (FinetuneConfig, {"token_dropout": 1.5}, SHARE),
    (FinetuneConfig, {"token_dropout": -1.0}, SHARE),
    (FinetuneConfig, {"token_dropout": NAN}, SHARE),
    (FinetuneConfig, {"layer_decay": 0.0}, POSITIVE),
    (FinetuneConfig, {"layer_decay": -0.5}, POSITIVE),
    (FinetuneConfig, {"blr_candidates": (1e-3, 0.0)}, POSITIVE),
    (FinetuneConfig, {"seed": -1}, SEED),
    (MaskConfig, {"mask_ratio_max": 0.0, "mask_ratio_min": 0.0}, "must lie in (0, 1]"),
    (MaskConfig, {"mask_ratio_max": 1.1}, "must lie in (0, 1]"),
    (MaskConfig, {"mask_ratio_min": 0.7, "mask_ratio_max": 0.6}, "must lie in [0, mask_ratio_max = 0.6]"),
    (AugmentConfig, {"noise_channel": -1.0}, NOT_NEGATIVE),
    (AugmentConfig, {"noise_element": -0.5}, NOT_NEGATIVE),
    (EdaConfig, {"replaced": 1.5}, "must be a probability"),
    (GeometryConfig, {"rotation": -400.0}, "must lie in [0, 180] degrees"),
    (GeometryConfig, {"rotation": 180.5}, "must lie in [0, 180] degrees"),
    (GeometryConfig, {"translation": -1.0}, "must lie in [0, 1]"),
    (GeometryConfig, {"translation": 1.5}, "must lie in [0, 1]"),
    (GeometryConfig, {"shear": 90.0}, "must lie in [0, 90) degrees"),
    (GeometryConfig, {"shear": -5.0}, "must lie in [0, 90) degrees"),
]


@pytest.mark.parametrize(("config_class", "fields", "demand"), REFUSED, ids=str)
def test_what_cannot_be_is_one_line_that_names_class_field_and_value(config_class, fields, demand):
    name, value = next(iter(fields.items()))
    line = f"{config_class.__name__}: {name} = {value!r} {demand}"
    with pytest.raises(UserError, match=f"^{re.escape(line)}$") as refused:
        config_class(**NEEDED.get(config_class, {}), **fields)
    tiny.one_line(str(refused.value))


@pytest.mark.parametrize(
    ("config_class", "fields"),
    [
        (TrainConfig, {"seed": 2**63 - 1, "betas": (0.0, 0.999), "weight_decay": 0.0}),
        (TrainConfig, {"lr": 1e-3, "min_lr": 1e-3}),
        (TrainConfig, {"blr": 1e-3, "min_lr": 1e-2}),  # the peak is blr x effective batch / 256, not known yet
        (EncoderConfig, {"width": 4, "depth": 1, "heads": 1, "patch_size": 1, "token_dropout": 0.0}),
        (DecoderConfig, {"width": 1, "depth": 1, "heads": 1, "dropout": 0.0}),
        (ModelConfig, {"label_smoothing": 0.0}),
        (FinetuneConfig, {"token_dropout": 0.0, "drop_path": 0.0, "layer_decay": 1.0, "label_smoothing": 0.0}),
        (MaskConfig, {"mask_ratio_min": 0.0, "mask_ratio_max": 1.0}),
        (AugmentConfig, {"noise_channel": 0.0, "noise_element": 0.0}),
        (GeometryConfig, {"rotation": 180.0, "translation": 0.0, "shear": 0.0}),
    ],
    ids=str,
)
def test_the_ends_of_what_can_be_are_taken(config_class, fields):
    config = config_class(**NEEDED.get(config_class, {}), **fields)
    assert {name: getattr(config, name) for name in fields} == fields
