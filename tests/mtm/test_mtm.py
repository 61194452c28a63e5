"""The masked token model: what it sees, what it predicts, what it is judged by."""

import numpy as np
import pytest
import torch
from einops import rearrange

import tiny
from seitpp.mtm.baselines import frequency_baselines
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.masking import make_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, load_model, save_model
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore

VIEW = (4, 6)  # 2 x 3 patches of 2 x 2 tokens
PATCHES = 6
CODES = 29


def make_model(*, view=VIEW, label_smoothing=0.0, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder=EncoderConfig(width=24, depth=2, heads=3, token_dropout=dropout, embedding_std=0.5),
        decoder=DecoderConfig(width=16, depth=1, heads=2, dropout=dropout),
        label_smoothing=label_smoothing,
    )
    model = MaskedTokenModel(config, view=view, codebook_size=CODES, embedding_dim=5)
    for parameter in (model.mask_token, model.decoder_pos_embed, model.head_bias):
        torch.nn.init.normal_(parameter)
    return model.double()


def some_masks(masked=4, dropped=2, samples=3, seed=0):
    noise = torch.from_numpy(np.random.default_rng(seed).random((samples, PATCHES)))
    return make_masks(noise, masked_count=masked, dropped_count=dropped)


@pytest.fixture
def ids():
    return tiny.random_ids(3, CODES, VIEW)


def patch_of(ids, patch):
    """The 2 x 2 ids of a patch of one sample, row by row."""
    row, column = 2 * (patch // 3), 2 * (patch % 3)
    return ids[row : row + 2, column : column + 2]


def encode_slowly(model, ids, masks, sample):
    """Latent of one sample: one patch at a time, in order, without those that are dropped."""
    encoder = model.encoder
    sequence = [encoder.cls_token[0, 0]]
    for patch in range(PATCHES):
        if masks.dropped[sample, patch]:
            continue
        if masks.masked[sample, patch]:
            vector = model.mask_token[0, 0]
        else:
            tokens = encoder.stem.embedding_norm(encoder.stem.embeddings.weight[patch_of(ids[sample], patch)])
            vector = encoder.stem.patches.bias + torch.einsum("dcpq,pqc->d", encoder.stem.patches.weight, tokens)
        sequence.append(vector + encoder.pos_embed[patch])
    x = torch.stack(sequence)[None]
    for block in encoder.blocks:
        x = block(x)
    return encoder.norm(x)[0]


def logits_slowly(model, latent, masks, sample):
    """Logits of all tokens of one sample, (patches, 4, k): hidden places hold the projected cls output."""
    cls, visible = latent[0], list(latent[1:])
    sequence = [cls]
    for patch in range(PATCHES):
        kept = None if masks.dropped[sample, patch] else visible.pop(0)
        sequence.append(cls if masks.masked[sample, patch] else kept)
    x = (model.decoder_embed(torch.stack(sequence)) + model.decoder_pos_embed[0])[None]
    for block in model.decoder_blocks:
        x = block(x)
    logits = []
    for vector in model.decoder_norm(x)[0, 1:]:
        tokens = model.head(vector).reshape(4, 5)
        normed = model.head_norm(torch.nn.functional.gelu(tokens))
        logits.append(normed @ model.encoder.stem.embeddings.weight.T + model.head_bias)
    return torch.stack(logits)


def losses_slowly(model, ids, masks, smoothing):
    """(smoothed loss, cross-entropy, accuracy), a loop over masked patches and their tokens."""
    smoothed, plain, right = [], [], []
    for sample in range(len(ids)):
        logits = logits_slowly(model, encode_slowly(model, ids, masks, sample), masks, sample)
        for patch in range(PATCHES):
            if not masks.masked[sample, patch]:
                continue
            for token, wanted in enumerate(patch_of(ids[sample], patch).flatten().tolist()):
                scores = logits[patch, token].detach().numpy()
                surprise = np.log(np.exp(scores).sum()) - scores
                plain.append(surprise[wanted])
                smoothed.append((1 - smoothing) * surprise[wanted] + smoothing * surprise.mean())
                right.append(int(scores.argmax()) == wanted)
    return np.mean(smoothed), np.mean(plain), np.mean(right)


# Encoder


@pytest.mark.parametrize(("masked", "dropped"), [(4, 2), (6, 3), (3, 3), (0, 0), (5, 0)])
def test_the_latent_is_that_of_the_loop_over_patches(ids, masked, dropped):
    model, masks = make_model().eval(), some_masks(masked, dropped)
    latent = model.encode(ids, masks)
    assert latent.shape == (3, 1 + PATCHES - dropped, 24)
    for sample in range(3):
        expected = encode_slowly(model, ids, masks, sample).detach().numpy()
        assert latent[sample].detach().numpy() == pytest.approx(expected, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("which", "matters"), [("dropped", False), ("masked", False), ("visible", True)])
def test_only_visible_patches_influence_the_latent(ids, which, matters):
    model, masks = make_model().eval(), some_masks()
    chosen = {"dropped": masks.dropped, "masked": masks.masked & ~masks.dropped, "visible": ~masks.masked}[which]
    changed = ids.clone()
    for sample in range(3):
        for patch in range(PATCHES):
            if chosen[sample, patch]:
                patch_of(changed[sample], patch).add_(1).remainder_(CODES)
    assert not torch.equal(changed, ids)
    assert torch.equal(model.encode(changed, masks), model.encode(ids, masks)) != matters


@torch.no_grad()
def test_features_of_whole_grids_are_those_of_a_model_that_hides_nothing(ids):
    model = make_model().eval()
    latent = model.encode(ids, some_masks(0, 0))
    assert model.encoder.norm(model.encoder(ids)).numpy() == pytest.approx(latent.numpy(), abs=1e-9)
    assert model.encoder.pooled(ids).numpy() == pytest.approx(latent[:, 1:].numpy().mean(axis=1), abs=1e-9)


@pytest.mark.parametrize("wrong", [{"width": 30}, {"width": 24, "heads": 5}, {"patch_size": 0}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(UserError, match=r"EncoderConfig: (width|patch_size)"):
        EncoderConfig(**wrong)


# Decoder and loss


@pytest.mark.parametrize(("masked", "dropped"), [(4, 2), (6, 3), (3, 3), (5, 0)])
def test_logits_at_all_places_are_those_of_the_loop(ids, masked, dropped):
    model, masks = make_model().eval(), some_masks(masked, dropped)
    latent = model.encode(ids, masks)
    logits = model.logits(model.decode(latent, masks))
    assert logits.shape == (3, PATCHES, 4, CODES)
    for sample in range(3):
        expected = logits_slowly(model, latent[sample], masks, sample).detach().numpy()
        assert logits[sample].detach().numpy() == pytest.approx(expected, abs=1e-9)


def test_targets_are_the_ids_patch_by_patch(ids):
    targets = make_model().targets(ids)
    for sample in range(3):
        expected = [patch_of(ids[sample], patch).flatten().tolist() for patch in range(PATCHES)]
        assert targets[sample].tolist() == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("masked", "dropped"), [(4, 2), (6, 3), (1, 1)])
def test_loss_ignores_visible_patches(ids, masked, dropped, smoothing):
    model, masks = make_model(label_smoothing=smoothing).eval(), some_masks(masked, dropped)
    loss, measures = model(ids, masks)
    computed = [loss.item(), float(measures["cross_entropy"]), float(measures["accuracy"])]
    assert computed == pytest.approx(losses_slowly(model, ids, masks, smoothing), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("how", ["autocast", "all weights"])
def test_the_loss_is_computed_in_float32_where_all_else_is_in_bf16(ids, how):
    model, masks = make_model(label_smoothing=0.1).float().eval(), some_masks()
    if how == "all weights":
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        loss, measures = model(ids, masks)
        decoded = model.decode(model.encode(ids, masks), masks)
        logits = model.logits(rearrange(decoded[masks.masked], "(b m) d -> b m d", b=3))
    assert {loss.dtype, measures["cross_entropy"].dtype, measures["accuracy"].dtype} == {torch.float32}
    scores, wanted = logits.double().numpy().reshape(-1, CODES), model.targets(ids)[masks.masked].flatten().numpy()
    surprise = np.log(np.exp(scores).sum(axis=1, keepdims=True)) - scores
    right = surprise[np.arange(len(wanted)), wanted]
    assert float(measures["cross_entropy"]) == pytest.approx(right.mean(), abs=1e-5)
    assert float(loss) == pytest.approx(0.9 * right.mean() + 0.1 * surprise.mean(), abs=1e-5)


def test_the_head_does_not_train_the_embedding_table(ids):
    model = make_model()
    loss, _ = model(ids, some_masks(PATCHES, 2))  # nothing visible: only the head could reach the table
    loss.backward()
    assert float(model.encoder.stem.embeddings.weight.grad.abs().sum()) == 0.0
    assert float(model.head.weight.grad.abs().sum()) > 0.0


def test_every_parameter_gets_a_gradient(ids):
    model = make_model()
    model(ids, some_masks())[0].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@torch.no_grad()
def test_a_completion_keeps_what_is_visible_and_fills_the_rest_with_the_likeliest(ids):
    model, masks = make_model().eval(), some_masks()
    filled = model.complete(ids, masks)
    for sample in range(3):
        likeliest = logits_slowly(model, encode_slowly(model, ids, masks, sample), masks, sample).argmax(-1)
        for patch in range(PATCHES):
            expected = likeliest[patch] if masks.masked[sample, patch] else patch_of(ids[sample], patch).flatten()
            assert patch_of(filled[sample], patch).flatten().tolist() == expected.tolist()


def test_dropout_makes_training_differ_and_evaluation_does_not(ids):
    model, masks = make_model(dropout=0.5), some_masks()
    assert model(ids, masks)[0].item() != model(ids, masks)[0].item()
    model.eval()
    assert model(ids, masks)[0].item() == model(ids, masks)[0].item()


# On disk


@torch.no_grad()
def test_a_saved_model_computes_the_same(tmp_path, ids):
    model, masks = make_model(label_smoothing=0.1).float().eval(), some_masks()
    save_model(tmp_path / "weights", model, tokenizer="f" * 64, grid=(8, 8))
    loaded, fingerprint = load_model(tmp_path)
    assert fingerprint == "f" * 64
    assert not loaded.training
    assert loaded(ids, masks)[0].item() == model(ids, masks)[0].item()
    assert loaded.encoder.view == VIEW


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        load_model(tmp_path / "nothing")


# Baselines


def test_frequency_baselines_are_those_counted_by_hand(tmp_path):
    counted = torch.tensor([[[0, 1, 1]], [[0, 2, 1]]])
    predicted = torch.tensor([[[0, 1, 2]]])
    stores = [
        TokenStore(tiny.make_store(tmp_path / str(number), each, codes=4, keys=None))
        for number, each in enumerate((counted, predicted))
    ]
    baselines = frequency_baselines(*stores)
    unigram = {0: 3 / 10, 1: 4 / 10, 2: 2 / 10}  # counts 2, 3, 1, 0 and one more each
    place = [(2 + 3 / 10) / 3, (1 + 4 / 10) / 3, (0 + 2 / 10) / 3]
    assert baselines["unigram"] == pytest.approx(-np.mean([np.log(unigram[token]) for token in (0, 1, 2)]))
    assert baselines["position"] == pytest.approx(-np.mean(np.log(place)))


def test_frequency_baselines_look_at_the_view_only(tmp_path):
    ids = torch.full((3, 4, 4), 5)
    ids[:, 1:3, 1:3] = 2
    store = TokenStore(tiny.make_store(tmp_path, ids, codes=6))
    assert frequency_baselines(store, view=(2, 2))["unigram"] == pytest.approx(-np.log(13 / 18))
