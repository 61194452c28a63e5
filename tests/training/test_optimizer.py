"""Parameter groups: every trainable parameter in one, with its decay and its rate."""

import pytest
import torch

from seitpp.finetune.classifier import Classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.training.config import TrainConfig
from seitpp.training.optimizer import make_adamw, parameter_groups, set_learning_rate

ENCODER = EncoderConfig(width=24, depth=3, heads=3)
SHAPE = {"view": (4, 6), "codebook_size": 29, "embedding_dim": 5}
MODELS = {
    "mtm": lambda: MaskedTokenModel(
        ModelConfig(encoder=ENCODER, decoder=DecoderConfig(width=16, depth=1, heads=2)), **SHAPE
    ),
    "classifier": lambda: Classifier(ENCODER, classes=4, **SHAPE),
    "tokenadapt": lambda: TokenAdapt(
        TokenAdaptConfig(width=64), grid=(2, 3), view=(2, 3), codebook_size=29, embedding_dim=5
    ),
    "tokenizer": lambda: VQTokenizer.untrained(
        VQConfig(image_size=(16, 24), widths=(32,), codebook_size=9, codebook_dim=5)
    ),
}


def names_by_group(model, groups):
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{name_of[id(parameter)] for parameter in group["params"]} for group in groups]


@pytest.mark.parametrize("kind", MODELS)
def test_every_trainable_parameter_is_in_exactly_one_group(kind):
    model = MODELS[kind]()
    frozen = next(iter(dict(model.named_parameters())))
    dict(model.named_parameters())[frozen].requires_grad_(False)
    grouped = [name for names in names_by_group(model, parameter_groups(model, weight_decay=0.1)) for name in names]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters() if name != frozen)


def test_matrices_are_decayed_and_vectors_embeddings_and_learned_places_are_not():
    model = MODELS["mtm"]()
    groups = parameter_groups(model, weight_decay=0.1)
    decayed = {
        name for group, names in zip(groups, names_by_group(model, groups), strict=True)
        for name in names if group["weight_decay"] == 0.1
    }  # fmt: skip
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    assert "encoder.stem.patches.weight" in decayed
    assert "encoder.blocks.2.mlp.fc1.weight" in decayed
    assert "head.weight" in decayed
    for name in (
        "encoder.stem.embeddings.weight", "encoder.cls_token", "mask_token", "decoder_pos_embed", "head_bias",
        "encoder.norm.weight", "encoder.blocks.0.attn.qkv.bias",
    ):  # fmt: skip
        assert name not in decayed


def test_layer_decay_scales_the_rate_by_depth():
    model = MODELS["classifier"]()
    groups = parameter_groups(model, weight_decay=0.1, layer_of=model.layer_of, layer_decay=0.5, layers=model.layers)
    scale_of = {
        name: group["lr_scale"] for group, names in zip(groups, names_by_group(model, groups), strict=True)
        for name in names
    }  # fmt: skip
    assert scale_of["head.weight"] == scale_of["norm.bias"] == 1.0
    assert scale_of["encoder.blocks.2.attn.qkv.weight"] == 0.5
    assert scale_of["encoder.blocks.1.norm1.weight"] == 0.25
    assert scale_of["encoder.blocks.0.mlp.fc2.bias"] == 0.125
    assert scale_of["encoder.stem.patches.weight"] == scale_of["encoder.stem.embeddings.weight"] == 0.0625
    assert scale_of["encoder.cls_token"] == 0.0625
    assert sorted(scale_of) == sorted(name for name, _ in model.named_parameters())


def test_the_published_mistake_gives_token_embeddings_the_heads_rate_and_nothing_else():
    model = MODELS["classifier"]()
    scales = [model.layer_of(name, embeddings_with_head=True) - model.layer_of(name) for name in model.state_dict()]
    moved = [name for name, moved in zip(model.state_dict(), scales, strict=True) if moved]
    assert moved == ["encoder.stem.embeddings.weight"]
    assert model.layer_of(moved[0], embeddings_with_head=True) == model.layers == 4


def test_the_rate_of_a_group_is_the_schedules_times_its_scale():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr_scale": 0.25}, {"params": [parameters[1]], "lr_scale": 1.0}]
    optimizer = make_adamw(groups, TrainConfig(output_dir="x", betas=(0.8, 0.9)))
    set_learning_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.4]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_one_step_is_that_of_adamw_by_hand():
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_adamw([{"params": [parameter], "weight_decay": 0.1, "lr_scale": 1.0}], TrainConfig(output_dir="x"))
    set_learning_rate(optimizer, 0.01)
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    assert parameter.item() == pytest.approx(1.0 * (1 - 0.01 * 0.1) - 0.01, abs=1e-6)  # m / sqrt(v) is 1 at first
