"""Iterative decoding: how many patches each pass decides, what never changes, and that it hangs together."""

from itertools import pairwise

import pytest
import torch

import tiny
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.generate import generate, hidden_counts
from seitpp.mtm.masking import MaskConfig, Masks, sample_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from seitpp.training.random_streams import Draws

VIEW = (4, 6)  # 2 x 3 patches of 2 x 2 tokens
PATCHES = 6
CODES = 29


def draws_of(samples, seed=0):
    return Draws(seed, 0, torch.arange(samples))


def make_model(*, view=VIEW, patch_size=2, codes=CODES, seed=0):
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder=EncoderConfig(width=32, depth=2, heads=2, patch_size=patch_size, embedding_std=0.5, token_dropout=0.0),
        decoder=DecoderConfig(width=32, depth=1, heads=2, dropout=0.0),
        label_smoothing=0.0,
    )
    return MaskedTokenModel(config, view=view, codebook_size=codes, embedding_dim=8).eval()


def watched(model):
    """The masks that a model encodes with, as it goes."""
    seen, encode = [], model.encode
    model.encode = lambda ids, masks: (seen.append(masks), encode(ids, masks))[1]
    return seen


HIDDEN = torch.tensor(
    [
        [True, False, True, True, False, True],
        [True, True, True, True, True, True],
        [False, False, False, True, False, False],
    ]
)


@pytest.fixture
def ids():
    return tiny.random_ids(3, CODES, VIEW)


# How many


@pytest.mark.parametrize(
    ("total", "steps", "counts"),
    [
        (100, 4, [100, 92, 70, 38, 0]),  # 100 cos(22.5°) = 92.4, 100 cos(45°) = 70.7, 100 cos(67.5°) = 38.3
        (5, 1, [5, 0]),
        (3, 6, [3, 2, 1, 0, 0, 0, 0]),  # one at least, so three passes are enough
        (0, 2, [0, 0, 0]),
    ],
)
def test_a_cosine_says_how_many_stay_hidden_and_each_pass_decides_one_at_least(total, steps, counts):
    assert hidden_counts(total, steps) == counts


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_pass_hides_exactly_what_the_schedule_says_in_each_sample(ids, temperature):
    model = make_model()
    seen = watched(model)
    generate(model, ids, HIDDEN, draws_of(3), steps=3, temperature=temperature)
    plans = [hidden_counts(total, 3) for total in (4, 6, 1)]
    assert plans == [[4, 3, 2, 0], [6, 5, 3, 0], [1, 0, 0, 0]]
    assert [masks.masked.sum(dim=1).tolist() for masks in seen] == [[4, 6, 1], [3, 5, 0], [2, 3, 0]]


@torch.no_grad()
def test_what_is_decided_stays_decided(ids):
    model = make_model()
    seen = watched(model)
    generate(model, ids, HIDDEN, draws_of(3), steps=4)
    for before, after in pairwise(seen):
        assert not (after.masked & ~before.masked).any()


@torch.no_grad()
@pytest.mark.parametrize(("limit", "counts"), [(None, [1, 0, 0]), (0, [0, 0, 0])])
def test_dropped_patches_are_hidden_ones_and_as_many_in_each_sample(ids, limit, counts):
    model = make_model()
    seen = watched(model)
    generate(model, ids, HIDDEN, draws_of(3), steps=3, dropped_count=limit)
    assert [masks.dropped_count for masks in seen] == counts
    for masks in seen:
        assert masks.dropped.sum(dim=1).tolist() == [masks.dropped_count] * 3
        assert not (masks.dropped & ~masks.masked).any()


# What changes


@torch.no_grad()
def test_visible_ids_never_change_and_hidden_ones_do_not_matter(ids):
    model = make_model()
    tokens = model.encoder.unpatchify(HIDDEN[..., None].expand(-1, -1, 4))
    filled = generate(model, ids, HIDDEN, draws_of(3), steps=3)
    assert torch.equal(filled[~tokens], ids[~tokens])
    assert filled[tokens].max() < CODES
    other = torch.where(tokens, (ids + 7) % CODES, ids)
    assert torch.equal(generate(model, other, HIDDEN, draws_of(3), steps=3), filled)


@torch.no_grad()
def test_a_mask_of_tokens_keeps_the_visible_ids_of_a_patch_that_is_partly_hidden(ids):
    model = make_model()
    hidden = torch.zeros(3, *VIEW, dtype=torch.bool)
    hidden[:, 1, :5] = True
    ids[:] = 28
    model.head_bias.data[28] = -1e4  # never the likeliest
    filled = generate(model, ids, hidden, draws_of(3), steps=2)
    assert torch.equal(filled == 28, ~hidden)


@torch.no_grad()
def test_a_mask_of_tokens_that_covers_patches_is_the_mask_of_those_patches(ids):
    model = make_model()
    tokens = model.encoder.unpatchify(HIDDEN[..., None].expand(-1, -1, 4))
    by_patch = generate(model, ids, HIDDEN, draws_of(3), steps=3)
    assert torch.equal(generate(model, ids, tokens, draws_of(3), steps=3), by_patch)


@torch.no_grad()
def test_one_pass_without_chance_is_the_completion_of_the_model(ids):
    model = make_model()
    half = HIDDEN[:1].expand(3, -1)
    masks = Masks(half, half, 4, 4)
    assert torch.equal(generate(model, ids, half, draws_of(3), steps=1, temperature=0), model.complete(ids, masks))


@torch.no_grad()
def test_where_nothing_is_hidden_the_model_is_not_asked(ids):
    model = make_model()
    seen = watched(model)
    assert torch.equal(generate(model, ids, torch.zeros(3, PATCHES, dtype=torch.bool), draws_of(3)), ids)
    assert seen == []


def test_chance_is_a_function_of_seed_and_place(ids):
    model, half = make_model(), HIDDEN[:1].expand(3, -1)
    filled = generate(model, ids, half, draws_of(3), steps=3)
    assert torch.equal(generate(model, ids, half, draws_of(3), steps=3), filled)
    assert not torch.equal(generate(model, ids, half, draws_of(3, seed=1), steps=3), filled)
    alone = generate(model, ids[1:], half[1:], draws_of(3)[1:], steps=3)
    assert torch.equal(alone, filled[1:])


@pytest.mark.parametrize("shape", [(3, 5), (3, 6, 4), (2, 6), (3, 4, 6, 1)])
def test_a_mask_of_another_shape_is_refused(ids, shape):
    with pytest.raises(ValueError, match=r"\(3, 6\) for patches or \(3, 4, 6\) for tokens; got"):
        generate(make_model(), ids, torch.zeros(shape, dtype=torch.bool), draws_of(3))


def test_no_pass_at_all_is_refused(ids):
    with pytest.raises(ValueError, match="steps = 0 must be at least 1"):
        generate(make_model(), ids, HIDDEN, draws_of(3), steps=0)


# Whether it hangs together


@pytest.fixture(scope="module")
def trained():
    """A model of grids of one id each, out of five; patches are single tokens."""
    model = make_model(view=(3, 4), patch_size=1, codes=7).train()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / 250)
        draws = Draws(0, step, torch.arange(32))
        ids = (5 * draws.uniform("id", 1, 1)).long().expand(-1, 3, 4)
        loss, _ = model(ids, sample_masks(MaskConfig(mask_ratio_std=1.0), draws, 12))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def share_of_one_id(ids):
    """Mean share of the most frequent id of each sample."""
    return sum(row.bincount().max().item() / row.numel() for row in ids.flatten(1)) / len(ids)


def test_from_nothing_one_pass_draws_every_place_by_itself_and_twelve_agree(trained):
    ids, everything = torch.zeros(64, 3, 4, dtype=torch.int64), torch.ones(64, 12, dtype=torch.bool)
    at_once, in_steps = (generate(trained, ids, everything, draws_of(64), steps=steps) for steps in (1, 12))
    assert share_of_one_id(at_once) < 0.5
    assert share_of_one_id(in_steps) > 0.9
    assert in_steps[:, 0, 0].unique().tolist() == [0, 1, 2, 3, 4]


def test_a_half_hidden_grid_is_restored(trained):
    ids = torch.arange(5)[:, None, None].expand(-1, 3, 4)
    hidden = torch.zeros(5, 3, 4, dtype=torch.bool)
    hidden[:, :, 2:] = True
    assert torch.equal(generate(trained, ids, hidden, draws_of(5), steps=4, temperature=0.0), ids)
