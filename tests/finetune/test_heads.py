"""Grids of heads: they learn together what each would learn alone, and the best on the held-out part is chosen."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
from seitpp.finetune.labelled import open_labelled, split_labelled
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.features import FrozenEncoder, Layout
from seitpp.finetune.probing.head_training import (
    HeadSources,
    HeadTraining,
    ViewSet,
    choose_head,
    measure_heads,
    probe_with_heads,
    train_heads,
)
from seitpp.finetune.probing.heads import AttentiveHeads, Head, HeadsConfig, LinearHeads, head_groups, heads_loss
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.model import load_model
from seitpp.runtime.devices import make_accelerator
from seitpp.tokenadapt.geometry import GeometryConfig

LAYOUT = Layout(3, ("cls", "mean"))
WIDTH, CLASSES = 4, 3


def plain_moments(layout=LAYOUT, width=WIDTH):
    """Those that leave features as they are."""
    shape = (layout.blocks, len(layout.poolings), width)
    return torch.zeros(shape), torch.ones(shape)


def drawn(heads, seed=0):
    """The heads with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return heads


# What heads compute


def test_a_grid_has_every_head_once():
    config = HeadsConfig(blr=(0.1, 0.2), weight_decay=(0.0, 0.5), inputs=("cls", "both"), blocks=(1, 2))
    grid = config.linear_grid()
    assert len(grid) == len(set(grid)) == 16
    assert Head(0.2, 0.5, 2, "both") in grid
    assert config.attentive_grid() == [Head(0.1, 0.0), Head(0.1, 0.5), Head(0.2, 0.0), Head(0.2, 0.5)]
    assert config.within(1).blocks == (1,)


@torch.no_grad()
def test_a_linear_head_reads_what_it_is_named_after():
    grid = [Head(1.0, 0.0, blocks, inputs) for blocks in (1, 2) for inputs in ("cls", "mean", "both") for _ in range(2)]
    mean, deviation = torch.randn(3, 2, WIDTH), torch.rand(3, 2, WIDTH) + 0.5
    heads = drawn(LinearHeads(grid, LAYOUT, CLASSES, (mean, deviation)))
    features = torch.randn(5, 3, 2, WIDTH)
    logits = torch.cat(heads(features), dim=1)
    standardised = (features - mean) / deviation
    for place, head in enumerate(grid):
        pooled = {"cls": [0], "mean": [1], "both": [0, 1]}[head.inputs]
        read = torch.cat(
            [standardised[:, block, each] for block in range(3 - head.blocks, 3) for each in pooled], dim=1
        )
        expected = F.linear(read, heads.weights[place], heads.biases[place])
        assert torch.allclose(logits[:, place], expected, atol=1e-5)


@torch.no_grad()
def test_an_attentive_head_is_attention_of_its_query_to_the_patches():
    heads = drawn(AttentiveHeads([Head(1.0, 0.0), Head(0.1, 0.0)], 6, CLASSES, attention_heads=5))
    assert heads.queries[0].shape == (3, 6)  # 3 is the nearest smaller divisor of 6
    patches = torch.randn(2, 7, 6)
    (logits,) = heads(patches)
    for sample in range(2):
        for place in range(2):
            values = []
            for part, query in enumerate(heads.queries[place]):
                weights = torch.softmax(torch.stack([patch @ query / 6**0.5 for patch in patches[sample]]), dim=0)
                seen = sum(weight * patch for weight, patch in zip(weights, patches[sample], strict=True))
                values.append(heads.values[place][2 * part : 2 * part + 2] @ seen)
            expected = heads.weights[place] @ torch.cat(values) + heads.biases[place]
            assert torch.allclose(logits[sample, place], expected, atol=1e-4)


def test_the_loss_is_the_sum_of_the_heads_own():
    logits = [torch.randn(4, 2, CLASSES), torch.randn(4, 3, CLASSES)]
    targets = torch.tensor([0, 2, 1, 1])
    alone = sum(F.cross_entropy(each[:, place], targets) for each in logits for place in range(each.shape[1]))
    assert heads_loss(logits, targets).item() == pytest.approx(alone.item(), rel=1e-6)
    assert heads_loss(logits, F.one_hot(targets, CLASSES).float()).item() == pytest.approx(alone.item(), rel=1e-6)


def test_every_parameter_of_a_grid_is_in_one_group_with_its_heads_rate_and_decay():
    grid = HeadsConfig(blr=(0.1, 0.2), weight_decay=(0.0, 0.5), blocks=(1, 2)).linear_grid()
    heads = LinearHeads(grid, LAYOUT, CLASSES, plain_moments())
    groups = head_groups(heads)
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(of) == len(list(heads.parameters()))
    for head, weight, bias in zip(grid, heads.weights, heads.biases, strict=True):
        assert (of[id(weight)]["lr_scale"], of[id(weight)]["weight_decay"]) == (head.blr, head.weight_decay)
        assert (of[id(bias)]["lr_scale"], of[id(bias)]["weight_decay"]) == (head.blr, 0.0)


def test_of_equally_accurate_heads_the_one_of_least_cross_entropy_is_chosen():
    grid = [Head(blr, 0.0) for blr in (1.0, 2.0, 3.0)]
    assert choose_head(grid, torch.tensor([0.5, 0.75, 0.75]), torch.tensor([0.1, 0.9, 0.8])) == 2


# Learning


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """26 rows of 3 classes, and 4 of none."""
    folder = tmp_path_factory.mktemp("labelled")
    labels = np.array([row % 3 for row in range(26)] + [-1] * 4)
    return open_labelled(tiny.make_store(folder, tiny.striped_ids(labels, tiny.GRID), labels=labels))


@pytest.fixture
def features(labelled):
    """Features of the rows: the number of its class stands out of the mean of the last block, the rest is noise."""
    numbers = np.random.default_rng(0).standard_normal((30, *plain_moments()[0].shape)).astype(np.float32)
    numbers[labelled.rows, -1, 1, labelled.targets] += 5
    return FeatureSet(numbers, labelled)


def training(folder, grid, **fields):
    fields = {"batch_size": 8, "steps": 7, "blr": 1.0, "mixed_precision": "no", "trackers": (), **fields}
    return HeadTraining(output_dir=str(folder), grid=tuple(each.described for each in grid), **fields)


def make_linear(grid):
    return LinearHeads(grid, LAYOUT, CLASSES, plain_moments())


def test_heads_that_learn_together_learn_what_each_learns_alone(features, tmp_path):
    grid = HeadsConfig(blr=(0.1, 0.02), weight_decay=(0.0, 0.5), inputs=("cls", "both"), blocks=(1, 2)).linear_grid()

    def trained(name, chosen):
        folder = tmp_path / name
        return train_heads(folder, partial(make_linear, chosen), features, training(folder, chosen), title=name)

    together = trained("together", grid)
    assert len({weight.abs().sum().item() for weight in together.weights}) == len(grid)
    for place in (0, 3, 9, 15):
        alone = trained(f"alone-{place}", [grid[place]])
        assert torch.allclose(alone.weights[0], together.weights[place], atol=1e-6)
        assert torch.allclose(alone.biases[0], together.biases[place], atol=1e-6)


def test_a_finished_training_of_heads_is_read_and_not_repeated(features, tmp_path):
    grid = [Head(0.1, 0.0, 1, "mean")]
    make = partial(make_linear, grid)
    first = train_heads(tmp_path, make, features, training(tmp_path, grid), title="once")
    nothing = features.part(features.labelled.part(np.zeros(0, np.int64)))
    again = train_heads(tmp_path, make, nothing, training(tmp_path, grid), title="again")
    assert torch.equal(first.weights[0], again.weights[0])


def test_measures_of_heads_are_those_of_one_row_at_a_time(features):
    heads = drawn(make_linear([Head(1.0, 0.0, 1, "mean"), Head(1.0, 0.0, 2, "cls")])).eval()
    accuracy, cross_entropy = measure_heads(heads, features, batch_size=7, accelerator=make_accelerator("no"))
    for place in range(2):
        right, losses = 0, 0.0
        for row in features.labelled.rows:
            logits = heads(torch.from_numpy(features.features[row : row + 1]))[place][0, 0]
            label = int(features.labelled.labels[row])
            right += int(logits.argmax()) == label
            losses -= torch.log_softmax(logits, dim=0)[label].item()
        assert accuracy[place].item() == pytest.approx(right / 26)
        assert cross_entropy[place].item() == pytest.approx(losses / 26, rel=1e-5)


def probed(folder, make, grid, sources, config):
    return probe_with_heads(
        folder, make, grid, sources, config, accelerator=make_accelerator("no"), made_of={}, title="probe", seed=0,
        mixed_precision="no",
    )  # fmt: skip


@pytest.mark.parametrize("refit", [True, False])
def test_a_grid_on_features_with_a_known_answer_finds_it(features, tmp_path, refit):
    config = HeadsConfig(blr=(1e-6, 1.0), weight_decay=(0.0,), blocks=(1, 2), batch_size=12, steps=30, refit=refit)
    fit_part, held_out = (features.part(each) for each in split_labelled(features.labelled, 0.3, seed=0))
    sources = HeadSources(fit_part, held_out, features, held_out)
    measured, summary = probed(tmp_path, make_linear, config.linear_grid(), sources, config)
    assert measured == {"accuracy": 1.0, "mean_per_class": 1.0}
    assert summary["choice"]["blr"] == 1.0
    assert summary["choice"]["inputs"] in ("mean", "both")  # cls knows nothing
    tried = {(each["blr"], each["blocks"], each["inputs"]): each["accuracy"] for each in summary["held_out"]}
    assert tried[1.0, 1, "mean"] == 1.0
    assert tried[1.0, 1, "cls"] < 0.8
    assert (tmp_path / "chosen").exists() == refit


@pytest.fixture
def frozen(labelled, tmp_path):
    encoder = load_model(tiny.make_mtm(tmp_path / "mtm"))[0].encoder
    return FrozenEncoder(encoder, labelled.store)


def test_an_attentive_head_finds_the_one_patch_that_tells_the_class(frozen, tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    ids = torch.from_numpy(random.integers(20, size=(60, *tiny.GRID)))
    for row, label in enumerate(labels):
        top, left = random.integers(2), random.integers(3)
        ids[row, 2 * top : 2 * top + 2, 2 * left : 2 * left + 2] = 30 + int(label)
    labelled = open_labelled(tiny.make_store(tmp_path / "store", ids, labels=labels))
    config = HeadsConfig(blr=(0.3,), weight_decay=(0.0,), attention_heads=2, batch_size=60, steps=40)
    views = partial(ViewSet, frozen, features=frozen.patches)
    fit_part, held_out = split_labelled(labelled, 0.3, seed=0)
    sources = HeadSources(views(fit_part), views(held_out), views(labelled), views(held_out))
    make = partial(AttentiveHeads, width=24, classes=3, attention_heads=2)
    measured, _ = probed(tmp_path / "run", make, config.attentive_grid(), sources, config)
    assert measured["accuracy"] > 0.8


def test_views_that_are_not_augmented_are_those_of_the_features_in_the_file(frozen, labelled):
    views = ViewSet(frozen, labelled, features=partial(frozen.pooled, layout=Layout()))
    layout = {"batch_size": 5, "seed": 3, "device": "cpu", "accum_iter": 1, "rank": 0, "world_size": 1}
    made = frozen.pooled(labelled.store.ids(range(30)), Layout()).numpy()
    kept = FeatureSet(made, labelled)
    pairs = [(views.training(layout)(2, 0), kept.training(layout)(2, 0))]
    pairs += zip(views.chunks(10, device="cpu"), kept.chunks(10), strict=True)
    for live, stored in pairs:
        assert torch.allclose(live[0], stored[0], atol=1e-5)
        assert torch.equal(live[1], stored[1])


def test_augmented_views_vary_by_step_and_are_the_same_again(frozen, labelled):
    augment = Augment(
        AugmentConfig(geometry=GeometryConfig(crop_scale=(0.2, 0.5))),
        store=labelled.store,
        view=frozen.view,
        device="cpu",
    )
    views = ViewSet(frozen, labelled, features=partial(frozen.pooled, layout=Layout()), augment=augment)
    layout = {"batch_size": 26, "seed": 3, "device": "cpu", "accum_iter": 1, "rank": 0, "world_size": 1}
    first, second = views.training(layout)(0, 0)[0], views.training(layout)(1, 0)[0]
    assert torch.equal(first, views.training(layout)(0, 0)[0])
    plain = replace(views, augment=None).training(layout)(0, 0)[0]
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first.sort(dim=0).values, second.sort(dim=0).values)
