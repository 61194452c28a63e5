"""The masked token model on very many codes: ids are split into numbers, each with a softmax of its own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import tiny
from seitpp.mtm.baselines import frequency_baselines
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.formats.published import to_published
from seitpp.mtm.formats.timm_vit import token_table
from seitpp.mtm.generate import generate
from seitpp.mtm.masking import make_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, load_model, save_model
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.errors import UserError
from seitpp.tokens.codebook import sign_codes
from seitpp.tokens.store import TokenStore
from seitpp.training.random_streams import Draws

ENCODER = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)
VIEW, CODES = (4, 6), 2**17


def make_model(encoder=ENCODER, codes=CODES, **fields):
    torch.manual_seed(0)
    decoder = DecoderConfig(width=16, depth=1, heads=2, dropout=0.0)
    config = ModelConfig(encoder=encoder, decoder=decoder, **fields)
    return MaskedTokenModel(config, view=VIEW, codebook_size=codes, embedding_dim=5).eval()


def some_masks(rows=3):
    noise = torch.rand(rows, 6, generator=torch.Generator().manual_seed(1))
    return make_masks(noise, masked_count=4, dropped_count=2)


def test_the_embedding_of_an_id_is_the_sum_of_those_of_its_numbers():
    stem = make_model().encoder.stem
    assert stem.embeddings.weight.shape == (32 + 4096, 5)
    ids = tiny.random_ids(2, CODES, VIEW)
    expected = stem.embeddings.weight[ids % 32] + stem.embeddings.weight[32 + ids // 32]
    looked_up = stem(expected.permute(0, 3, 1, 2))
    assert torch.equal(stem(ids), looked_up)
    assert torch.equal(stem.table[ids], expected)
    assert stem.table.shape == (CODES, 5)


@torch.no_grad()
def test_the_loss_is_the_sum_of_the_cross_entropies_of_the_numbers():
    model, ids, masks = make_model(label_smoothing=0.1), tiny.random_ids(3, CODES, VIEW), some_masks()
    loss, measures = model(ids, masks)
    logits = model.logits(model.decode(model.encode(ids, masks), masks))
    assert logits.shape == (3, 6, 4, 32 + 4096)
    wanted = model.targets(ids)[masks.masked]
    low, high = logits[masks.masked].split([32, 4096], dim=-1)
    pairs = [(low.flatten(0, 1), (wanted % 32).flatten()), (high.flatten(0, 1), (wanted // 32).flatten())]
    smooth = sum(F.cross_entropy(*pair, label_smoothing=0.1) for pair in pairs)
    plain = sum(F.cross_entropy(*pair) for pair in pairs)
    assert float(loss) == pytest.approx(float(smooth), rel=1e-5)
    assert float(measures["cross_entropy"]) == pytest.approx(float(plain), rel=1e-5)
    assert float(measures["accuracy"]) == 0.0


def test_a_token_is_right_where_all_its_numbers_are():
    model, masks = make_model(), some_masks()
    with torch.no_grad():
        model.head_bias[[3, 32 + 5]] = 1e4  # always the id 3 + 5 * 32
    ids = torch.full((3, *VIEW), 3 + 5 * 32)
    assert float(model(ids, masks)[1]["accuracy"]) == 1.0
    assert float(model(ids + 1, masks)[1]["accuracy"]) == float(model(ids + 32, masks)[1]["accuracy"]) == 0.0
    hidden = torch.where(model.encoder.unpatchify(masks.masked[..., None].expand(-1, -1, 4)), 0, ids)
    assert torch.equal(model.complete(hidden, masks), ids)
    draws = Draws(0, 0, torch.arange(3))
    assert torch.equal(generate(model, hidden, masks.masked, draws, steps=3, temperature=1.0), ids)


def test_one_step_of_sampling_at_no_temperature_is_completion():
    model, ids, masks = make_model(), tiny.random_ids(3, CODES, VIEW), some_masks()
    hidden = replace(masks, dropped=masks.masked, dropped_count=masks.masked_count)
    drawn = generate(model, ids, masks.masked, Draws(0, 0, torch.arange(3)), steps=1, temperature=0.0)
    assert torch.equal(drawn, model.complete(ids, hidden))
    assert not torch.equal(drawn, ids)


def test_a_model_of_one_number_is_the_model_of_whole_ids():
    whole, told = make_model(codes=37), make_model(replace(ENCODER, code_factors=(6,)), codes=37)
    assert all(torch.equal(value, told.state_dict()[name]) for name, value in whole.state_dict().items())
    assert make_model(replace(ENCODER, code_factors=(2, 4)), codes=37).factors.sizes == (4, 10)


def test_embeddings_that_start_from_signs_are_the_signs():
    config = replace(ENCODER, embedding_init="codebook", code_factors=(2, 4))
    stem, codes = PatchStem(config, codebook_size=64, embedding_dim=6), sign_codes(6)
    stem.start_from(codes, config)
    assert torch.allclose(stem.table, codes / codes.std(dim=0) * 0.5, atol=1e-6)


def test_embeddings_of_ids_have_the_std_that_is_asked_for():
    torch.manual_seed(0)
    stem = make_model().encoder.stem
    stem.initialise_embeddings()
    assert float(stem.table.detach().std()) == pytest.approx(0.5, rel=0.05)


def test_weights_and_their_numbers_come_back(tmp_path):
    model = make_model(replace(ENCODER, code_factors=(9, 8)))
    save_model(tmp_path, model, tokenizer="a" * 64, grid=VIEW)
    again, _ = load_model(tmp_path)
    assert again.factors == model.factors
    ids, masks = tiny.random_ids(3, CODES, VIEW), some_masks()
    assert torch.equal(again(ids, masks)[0], model(ids, masks)[0])


def test_the_table_for_timm_has_a_row_for_each_id():
    encoder = make_model().encoder
    table = token_table(encoder)
    assert table.shape == (CODES, 5)
    assert torch.equal(table[777], encoder.stem.embedding_norm(encoder.stem.table[777]))


def test_a_split_model_has_no_published_names():
    with pytest.raises(UserError, match="this model splits its ids into 2 numbers"):
        to_published(make_model())


@pytest.mark.parametrize("bits", [(), (0, 17), (25,)])
def test_bits_that_are_none_are_refused(bits):
    with pytest.raises(UserError, match="EncoderConfig: code_factors = "):
        replace(ENCODER, code_factors=bits)


def test_frequencies_are_those_of_the_numbers(tmp_path):
    ids = torch.tensor([[[5, 5 + 32]], [[5, 5 + 64]]])
    tiny.make_store(tmp_path, ids, codes=CODES, codebook=sign_codes(17), lookup="signs")
    found = frequency_baselines(TokenStore(tmp_path))
    low = -torch.tensor(5 / 36).log()  # 4 of 4 tokens, one added to each of 32 counts
    high = -(2 * torch.tensor(3 / 4100).log() + 2 * torch.tensor(2 / 4100).log()) / 4
    assert found["unigram"] == pytest.approx(float(low + high), rel=1e-6)
    assert found["position"] < found["unigram"]
