"""The augmentation of a training step: ids in, ids of views out."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import tiny
from seitpp.mtm.augmentation import appearance as appearance_module
from seitpp.mtm.augmentation import augment as pipeline_module
from seitpp.mtm.augmentation import eda as eda_module
from seitpp.mtm.augmentation import mixing as mixing_module
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig, TokenEda
from seitpp.mtm.augmentation.mixing import MixConfig, Mixing
from seitpp.mtm.augmentation.partners import sample_partners
from seitpp.runtime.errors import UserError
from seitpp.tokenadapt.geometry import GeometryConfig, sample_crop, sample_geometry, warp
from seitpp.tokenadapt.model import load_token_adapt
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws

GRID, VIEW = (8, 12), (6, 10)
OFF = AugmentConfig(crop=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    ids = tiny.striped_ids(3 * np.arange(16), GRID)  # each sample has codes of its own
    return TokenStore(tiny.make_store(tmp_path_factory.mktemp("store"), ids))


@pytest.fixture(scope="module")
def token_adapt(tmp_path_factory):
    return str(tiny.make_token_adapt(tmp_path_factory.mktemp("ta"), grid=GRID, view=VIEW))


@pytest.fixture
def ids(store):
    return store.ids(range(16))


def draws(step=0, count=16):
    return Draws(7, step, torch.arange(count))


def augment(store, config, view=VIEW):
    return Augment(config, store=store, view=view, device="cpu")


def nearest(embeddings, codebook):
    """Ids of the codes at the least distance, in numpy: (b, c, h, w) to (b, h, w)."""
    maps = np.asarray(embeddings, np.float64).transpose(0, 2, 3, 1)[..., None, :]
    return np.linalg.norm(maps - codebook.numpy().astype(np.float64), axis=-1).argmin(-1)


def embedded(ids, codebook):
    return codebook.numpy().astype(np.float64)[ids.numpy()].transpose(0, 3, 1, 2)


# What is off


def test_without_any_augmentation_ids_come_back_unchanged(store, ids):
    assert torch.equal(augment(store, OFF, GRID)(ids, draws()), ids)


def test_without_any_augmentation_views_are_cut_at_the_centre(store, ids):
    assert torch.equal(augment(store, OFF)(ids, draws()), ids[:, 1:7, 1:11])


def test_what_is_cut_from_an_uneven_margin_loses_more_at_the_end():
    grid = torch.arange(20).reshape(1, 4, 5)
    assert centre(grid, (3, 2)).tolist() == [[[1, 2], [6, 7], [11, 12]]]


@pytest.mark.parametrize("name", ["off", "default", "demo", "all"])
def test_the_views_of_former_runs_have_not_changed(store, ids, token_adapt, name):
    """`frozen_views.npz` was recorded before EDA, other partners and mixing came: three steps of each pipeline."""
    demo = AugmentConfig(
        crop=False, color_adapt=0.1, noise=0.1, noise_channel=0.1, noise_element=0.1, token_adapt=token_adapt,
        geometry=GeometryConfig(crop_scale=(0.5, 1.0)),
    )  # fmt: skip
    everything = AugmentConfig(color_adapt=0.4, noise=0.4, token_adapt=token_adapt)
    config = {"off": OFF, "default": AugmentConfig(), "demo": demo, "all": everything}[name]
    views = np.stack([augment(store, config)(ids, draws(step)).numpy() for step in range(3)])
    frozen = np.load(Path(__file__).parent / "frozen_views.npz")[name]
    assert (views == frozen).mean() > 0.999  # another machine may round otherwise where two codes are equally near


WHAT_RUNS = [
    ("token_adapt", AugmentConfig(crop=False), {"embed", "nearest_code", "sample_geometry", "adapt_ids"}),
    (None, OFF, set()),
    (None, AugmentConfig(), {"embed", "sample_crop", "warp", "nearest_code"}),
    (None, replace(OFF, color_adapt=0.1), {"embed", "sample_partners", "color_adapt", "nearest_code"}),
    (None, replace(OFF, noise=0.1), {"embed", "add_noise", "nearest_code"}),
    (None, replace(OFF, eda=EdaConfig(synonyms=0.1)), {"replace_by_synonyms"}),
    (None, replace(OFF, eda=EdaConfig(swap=0.1)), {"sample_swap", "take_places"}),
    (None, replace(OFF, mix=MixConfig(cutmix=1.0)), {"sample_partners", "at_quantile", "cutmix_boxes"}),
    (None, replace(OFF, mix=MixConfig(mixup=1.0)), {"sample_partners", "at_quantile", "embed", "nearest_code"}),
    (None, replace(OFF, mix=MixConfig(token_adapt_mixup=1.0)), set()),
]


@pytest.mark.parametrize(("networks", "config", "expected"), WHAT_RUNS)
def test_what_is_off_is_not_computed(store, ids, token_adapt, monkeypatch, networks, config, expected):
    pipeline = augment(store, replace(config, token_adapt=token_adapt if networks else None))
    ran = set()

    def noted(name, function):
        def run(*args, **kwargs):
            ran.add(name)
            return function(*args, **kwargs)

        return run

    names = {
        pipeline_module: "embed nearest_code warp sample_crop sample_geometry adapt_ids",
        appearance_module: "color_adapt add_noise sample_partners",
        eda_module: "replace_by_synonyms sample_swap take_places",
        mixing_module: "at_quantile cutmix_boxes sample_partners",
    }
    for module, words in names.items():
        for name in words.split():
            monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    pipeline(ids, draws())
    assert ran - ({"warp"} if networks else set()) == expected


# Each part


def test_crops_are_warps_of_embeddings_to_the_nearest_code(store, ids):
    config = replace(OFF, crop=True, geometry=GeometryConfig(crop_scale=(0.3, 0.6)))
    views = augment(store, config)(ids, draws())
    crop = sample_crop(config.geometry, draws(), 1.5)
    embeddings = torch.from_numpy(embedded(ids, store.codebook)).float()
    expected = nearest(warp(embeddings, crop, VIEW, mode="bicubic"), store.codebook)
    assert (views.numpy() == expected).mean() > 0.999  # two codes may be equally near


@pytest.mark.parametrize("pairing", ["neighbour", "reversed", "random"])
def test_color_adapt_takes_the_statistics_of_the_partner(store, ids, pairing):
    views = augment(store, replace(OFF, color_adapt=1.0, partners=pairing), GRID)(ids, draws())
    partners = {
        "neighbour": [index ^ 1 for index in range(16)],
        "reversed": [15 - index for index in range(16)],
        "random": sample_partners("random", draws(), "recolour partner").tolist(),
    }[pairing]
    maps = embedded(ids, store.codebook)
    mean, deviation = maps.mean((2, 3), keepdims=True), maps.std((2, 3), keepdims=True)
    adapted = (maps - mean) / deviation * deviation[partners] + mean[partners]
    assert (views.numpy() == nearest(adapted, store.codebook)).mean() > 0.99
    assert not torch.equal(views, ids)


def test_noise_changes_more_ids_the_larger_it_is(store, ids):
    def changed(scale):
        config = replace(OFF, noise=1.0, noise_channel=scale, noise_element=scale)
        return float((augment(store, config, GRID)(ids, draws()) != ids).float().mean())

    shares = [changed(scale) for scale in (0.0, 0.1, 0.5, 3.0)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


def test_noise_is_measured_in_deviations_of_the_codebook(tmp_path, ids):
    codebook = torch.randn(tiny.CODES, 5, generator=torch.Generator().manual_seed(0))
    views = []
    for scale in (1.0, 50.0):
        store = TokenStore(tiny.make_store(tmp_path / str(scale), ids, codebook=codebook * scale))
        views.append(augment(store, replace(OFF, noise=1.0), GRID)(ids, draws()))
    assert float((views[0] == views[1]).float().mean()) > 0.99


@pytest.mark.parametrize("pairing", ["neighbour", "reversed", "random"])
def test_each_sample_is_recoloured_or_noised_with_exactly_its_probability(store, ids, pairing):
    config = replace(OFF, color_adapt=0.2, noise=0.3, partners=pairing)
    both, colours = augment(store, config, GRID), augment(store, replace(config, noise=0.0), GRID)
    changed = {"both": torch.zeros(16, dtype=torch.int64), "colours": torch.zeros(16, dtype=torch.int64)}
    for step in range(200):
        recoloured = colours(ids, draws(step))
        views = both(ids, draws(step))
        chosen = (recoloured != ids).flatten(1).any(1)
        assert torch.equal(views[chosen], recoloured[chosen])  # the two exclude each other
        changed["colours"] += chosen
        changed["both"] += (views != ids).flatten(1).any(1)
    for name, probability in (("colours", 0.2), ("both", 0.5)):
        low, high = binom.interval(1 - 1e-6, 200, probability)
        assert all(low <= count <= high for count in changed[name].tolist())
        low, high = binom.interval(1 - 1e-6, 200 * 16, probability)
        assert low <= int(changed[name].sum()) <= high


def test_edits_come_before_all_else(store, ids):
    config = AugmentConfig(eda=EdaConfig(synonyms=0.5, swap=0.5), color_adapt=0.5)
    edited = TokenEda(config.eda, store=store, device="cpu")(ids, draws())
    expected = augment(store, replace(config, eda=EdaConfig()))(edited, draws())
    assert torch.equal(augment(store, config)(ids, draws()), expected)
    assert torch.equal(augment(store, replace(OFF, eda=config.eda))(ids, draws()), centre(edited, VIEW))


def the_mix(config, batch, view=VIEW):
    return Mixing(config, mixup=config.mixup, pairing="neighbour", view=view, device="cpu").sample(batch)


@pytest.mark.parametrize("crop", [False, True])
def test_cutmix_pastes_a_rectangle_of_the_partners_view(store, ids, crop):
    config = replace(OFF, crop=crop, mix=MixConfig(cutmix=1.0))
    whole = augment(store, replace(config, mix=MixConfig()))(ids, draws())
    views, targets = augment(store, config).mixed(ids, torch.arange(16), draws(), classes=16)
    own = the_mix(config.mix, draws()).own.bool().numpy()
    for sample in range(16):
        expected = np.where(own[sample], whole[sample], whole[sample ^ 1])
        assert np.array_equal(views[sample], expected)
        assert targets[sample, sample].item() == pytest.approx(own[sample].mean())
        assert targets[sample, sample ^ 1].item() == pytest.approx(1 - own[sample].mean())


def test_cutmix_of_embeddings_and_of_ids_are_the_same(store, ids):
    config = AugmentConfig(mix=MixConfig(cutmix=1.0))
    with_embeddings = replace(config, mix=MixConfig(cutmix=1.0, mixup=1.0, cutmix_share=1.0))
    assert torch.equal(augment(store, with_embeddings)(ids, draws()), augment(store, config)(ids, draws()))


def test_mixup_goes_to_the_code_nearest_to_the_mixture(store, ids):
    config = replace(OFF, mix=MixConfig(mixup=0.8))
    views, targets = augment(store, config).mixed(ids, torch.arange(16), draws(), classes=16)
    share = targets.diagonal().double().numpy()[:, None, None, None]
    maps = embedded(centre(ids, VIEW), store.codebook)
    mixed = share * maps + (1 - share) * maps[[index ^ 1 for index in range(16)]]
    assert (views.numpy() == nearest(mixed, store.codebook)).mean() > 0.995
    assert share.min() < 0.2
    assert share.max() > 0.8


def test_token_adapts_half_is_mixed_on_the_warped_features_with_a_mixup_of_its_own(store, ids, token_adapt):
    config = AugmentConfig(token_adapt=token_adapt, mix=MixConfig(token_adapt_mixup=0.8))
    views, targets = augment(store, config).mixed(ids, torch.arange(16), draws(), classes=16)
    plain = augment(store, replace(config, mix=MixConfig()))(ids, draws())
    assert torch.equal(views[0::2], plain[0::2])
    assert torch.equal(targets[0::2], torch.eye(16)[0::2])
    model, _ = load_token_adapt(token_adapt)
    geometry = sample_geometry(config.geometry, draws(), 1.5)[1::2]
    features = warp(model.f(torch.from_numpy(embedded(ids[1::2], store.codebook)).float()), geometry, (12, 20))
    share = targets.diagonal()[1::2, None, None, None]
    mixed = share * features + (1 - share) * features[[1, 0, 3, 2, 5, 4, 7, 6]]  # in its half, the neighbour
    assert (views[1::2] == model.g(mixed).argmax(1)).float().mean() > 0.999
    partners = [place ^ 2 for place in range(1, 16, 2)]
    assert share.max() < 1
    assert targets[torch.arange(1, 16, 2), partners].numpy() == pytest.approx(1 - share.flatten().numpy(), abs=1e-6)


def test_cutmix_of_both_halves_keeps_partners_of_the_same_half(store, ids, token_adapt):
    config = AugmentConfig(token_adapt=token_adapt, mix=MixConfig(cutmix=1.0))
    _, targets = augment(store, config).mixed(ids, torch.arange(16), draws(), classes=16)
    for place in range(16):
        assert set(targets[place].nonzero().flatten().tolist()) <= {place, place ^ 2}
        assert targets[place].sum().item() == pytest.approx(1.0)


def test_without_mixing_labels_come_back_as_they_are(store, ids):
    labels = torch.arange(16) % 3
    views, targets = augment(store, AugmentConfig()).mixed(ids, labels, draws(), classes=3)
    assert targets is labels
    assert torch.equal(views, augment(store, AugmentConfig())(ids, draws()))


def test_views_are_the_same_with_labels_and_without(store, ids, everything):
    pipeline = augment(store, everything)
    assert torch.equal(pipeline(ids, draws()), pipeline.mixed(ids, torch.arange(16), draws(), classes=16)[0])


def test_token_adapt_makes_every_second_view(store, ids, token_adapt):
    config = AugmentConfig(token_adapt=token_adapt)
    views = augment(store, config)(ids, draws())
    cropped = augment(store, replace(config, token_adapt=None))(ids, draws())
    assert torch.equal(views[0::2], cropped[0::2])
    model, _ = load_token_adapt(token_adapt)
    geometry = sample_geometry(config.geometry, draws(), 1.5)[1::2]
    embeddings = torch.from_numpy(embedded(ids[1::2], store.codebook)).float()
    logits = model(embeddings, partial(warp, geometry=geometry, size=(12, 20)))
    assert torch.equal(views[1::2], logits.argmax(1))


@torch.no_grad()
def test_token_adapt_alone_runs_in_the_precision_asked_for(store, ids, token_adapt):
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    config = AugmentConfig(token_adapt=token_adapt, color_adapt=0.5, noise=0.5)
    pipeline = Augment(config, store=store, view=VIEW, device="cpu", autocast=autocast)
    seen = []
    pipeline.token_adapt.g_out.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    low, exact = pipeline(ids, draws()), augment(store, config)(ids, draws())
    assert seen == [torch.bfloat16]
    assert torch.equal(low[0::2], exact[0::2])  # crops
    assert 0.9 < float((low[1::2] == exact[1::2]).double().mean()) < 1.0


# Together


@pytest.fixture(scope="module")
def everything(token_adapt):
    return AugmentConfig(
        token_adapt=token_adapt, color_adapt=0.4, noise=0.4, eda=EdaConfig(synonyms=0.4, swap=0.4),
        mix=MixConfig(cutmix=1.0, mixup=0.4, token_adapt_mixup=0.8, probability=0.8),
    )  # fmt: skip


def test_views_are_ids_of_the_view_and_inputs_are_not_changed(store, ids, everything):
    before = ids.clone()
    views = augment(store, everything)(ids, draws())
    assert views.shape == (16, *VIEW)
    assert views.dtype == torch.int64
    assert 0 <= int(views.min()) <= int(views.max()) < tiny.CODES
    assert torch.equal(ids, before)


@pytest.mark.parametrize("part", [4, 8])
def test_a_view_and_its_target_depend_on_its_position_and_not_on_the_division_of_the_batch(
    store, ids, everything, part
):
    pipeline, labels = augment(store, everything), torch.arange(16)
    views, targets = pipeline.mixed(ids, labels, draws(), classes=16)
    parts = [
        pipeline.mixed(ids[each], labels[each], draws()[each], classes=16)
        for each in (slice(start, start + part) for start in range(0, 16, part))
    ]
    together = torch.cat([part[0] for part in parts])
    assert float((together == views).float().mean()) > 0.999  # sums over fewer rows may round otherwise
    assert torch.equal(torch.cat([part[1] for part in parts]), targets)


def test_pairs_are_all_that_a_batch_without_mixing_needs_to_keep_together(store, ids, everything):
    pipeline = augment(store, replace(everything, mix=MixConfig()))
    parts = [pipeline(ids[start : start + 2], draws()[start : start + 2]) for start in range(0, 16, 2)]
    assert float((torch.cat(parts) == pipeline(ids, draws())).float().mean()) > 0.999


def test_views_change_from_step_to_step_and_repeat_for_the_same_step(store, ids, everything):
    pipeline = augment(store, everything)
    assert torch.equal(pipeline(ids, draws(3)), pipeline(ids, draws(3)))
    assert not torch.equal(pipeline(ids, draws(4)), pipeline(ids, draws(3)))


@pytest.mark.parametrize("part", [1, 3])
def test_color_adapt_refuses_a_batch_that_divides_pairs(store, ids, part):
    pipeline = augment(store, replace(OFF, color_adapt=0.5), GRID)
    with pytest.raises(UserError, match="even"):
        pipeline(ids[part : 2 * part], draws()[part : 2 * part])


# On a device


def moved(thing, device):
    """Move the tensors of a pipeline, its networks and parts included, to a device."""
    if isinstance(thing, nn.Module):
        for module in thing.modules():
            for kept in (module._parameters, module._buffers):
                kept.update({name: moved(tensor, device) for name, tensor in kept.items()})
        return thing
    if torch.is_tensor(thing):
        return thing.detach().to(device)
    if isinstance(thing, Augment | TokenEda | Mixing | eda_module.Synonyms):
        thing.__dict__.update({name: moved(part, device) for name, part in vars(thing).items()})
    return thing


@pytest.mark.parametrize("pairing", ["neighbour", "random"])
def test_a_step_never_asks_the_device_for_a_number_or_a_shape(store, token_adapt, everything, pairing):
    """On a GPU that is only pretended, whose tensors hold nothing: reading one fails, and so does one left behind."""
    pipeline = augment(store, replace(everything, partners=pairing))
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved(pipeline, "cuda")
        positions = torch.arange(16, device="cuda")
        ids = torch.zeros(16, *GRID, dtype=torch.int64, device="cuda")
        views, targets = pipeline.mixed(ids, positions, Draws(7, 0, positions), classes=16)
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            views.max().item()
    assert (views.shape, targets.shape) == ((16, *VIEW), (16, 16))
    assert views.device.type == targets.device.type == "cuda"


# What does not fit


def test_the_token_adapt_of_another_tokenizer_is_refused(store, tmp_path):
    other = tiny.make_token_adapt(tmp_path, grid=GRID, view=VIEW, fingerprint="b" * 64)
    with pytest.raises(UserError, match=r"made by tokenizer aaaaaaaaaaaa, but TokenAdapt in .* tokenizer bbbbbbbbbbbb"):
        augment(store, AugmentConfig(token_adapt=str(other)))


@pytest.mark.parametrize("shape", [{"grid": (8, 8), "view": VIEW}, {"grid": GRID, "view": GRID}])
def test_the_token_adapt_of_another_grid_or_view_is_refused(store, tmp_path, shape):
    other = tiny.make_token_adapt(tmp_path, **shape)
    with pytest.raises(UserError, match=r"this training needs \(8, 12\) to \(6, 10\)"):
        augment(store, AugmentConfig(token_adapt=str(other)))


def test_token_adapt_refuses_an_odd_batch(store, ids, token_adapt):
    with pytest.raises(UserError, match="--batch_size 3 must be even"):
        augment(store, AugmentConfig(token_adapt=token_adapt))(ids[:3], draws()[:3])


@pytest.mark.parametrize("part", [2, 6])
def test_mixing_beside_token_adapt_refuses_a_batch_that_divides_pairs_of_its_halves(store, ids, everything, part):
    with pytest.raises(UserError, match=f"--batch_size {part} must be a multiple of 4, as each half"):
        augment(store, everything)(ids[:part], draws()[:part])


def test_mixing_alone_refuses_an_odd_batch(store, ids):
    with pytest.raises(UserError, match="--batch_size 5 must be even"):
        augment(store, replace(OFF, mix=MixConfig(cutmix=1.0)))(ids[:5], draws()[:5])


@pytest.mark.parametrize("crop", [False, True])
def test_a_view_larger_than_the_grid_is_refused(store, crop):
    with pytest.raises(UserError, match="view"):
        augment(store, replace(OFF, crop=crop), (10, 12))


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"color_adapt": -0.1}, {"noise": 0.6, "color_adapt": 0.6}])
def test_impossible_probabilities_are_refused(wrong):
    with pytest.raises(UserError, match=r"AugmentConfig: (noise|color_adapt) = "):
        AugmentConfig(**wrong)


def test_embeddings_of_views_are_those_of_their_ids_where_nothing_lies_between_codes(store, ids, token_adapt):
    for config in (OFF, replace(OFF, mix=MixConfig(cutmix=1.0)), replace(OFF, token_adapt=token_adapt)):
        views = augment(store, config)(ids, draws())
        maps = Augment(config, store=store, view=VIEW, device="cpu", as_embeddings=True)(ids, draws())
        assert torch.equal(maps, store.codebook[views].permute(0, 3, 1, 2))


def test_crops_and_noise_stay_between_codes_and_the_nearest_are_the_ids(store, ids, token_adapt):
    config = AugmentConfig(noise=0.5, token_adapt=token_adapt, mix=MixConfig(cutmix=1.0))
    views = augment(store, config)(ids, draws())
    maps = Augment(config, store=store, view=VIEW, device="cpu", as_embeddings=True)(ids, draws())
    assert maps.shape == (16, 5, *VIEW)
    assert np.array_equal(nearest(maps, store.codebook), views)
    looked_up = store.codebook[views].permute(0, 3, 1, 2)
    assert torch.equal(maps[1::2], looked_up[1::2])  # TokenAdapt's half
    assert not torch.allclose(maps[0::2], looked_up[0::2], atol=0.1)
