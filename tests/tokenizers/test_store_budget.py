"""What each way of getting a store below a budget costs."""

import json

import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import store_budget as stage
from seitpp.tokenizers.decoded_quality import DecodedQuality
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.store_budget import BudgetConfig, Way
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens import code_store
from seitpp.tokens.code_store import CodeStoreConfig
from seitpp.tokens.store import TokenStore


@pytest.fixture
def store(tmp_path):
    """600 rows whose codes are easy to foresee: two of them make up most."""
    random = np.random.default_rng(0)
    ids = random.choice(300, size=(600, *tiny.GRID), p=[0.45, 0.45, *[0.1 / 298] * 298])
    return TokenStore(tiny.make_store(tmp_path / "store", torch.from_numpy(ids), codes=300, rows_per_shard=200))


def ways_of(store, capsys, **fields):
    stage.main(BudgetConfig(store=str(store.folder), json=True, **fields))
    return json.loads(capsys.readouterr().out)


def test_the_first_way_is_the_store_as_it_lies_there(store, capsys):
    said = ways_of(store, capsys, bytes="1GB")
    assert [way["name"] for way in said["ways"]] == ["as it is", "coded"]
    assert said["ways"][0]["total"] == said["bytes"] == store.size.total
    assert said["ways"][0]["rows_within"] == said["rows"] == 600


def test_what_coding_costs_is_foreseen_from_a_part_of_the_rows(store, tmp_path, capsys):
    foreseen = ways_of(store, capsys, bytes="1GB", rows=300)["ways"][1]["total"]
    code_store.main(CodeStoreConfig(store=str(store.folder), output_dir=str(tmp_path / "coded")))
    coded = TokenStore(tmp_path / "coded").size.total
    assert coded < 0.8 * store.size.total
    assert abs(foreseen - coded) < 0.1 * coded


def test_codes_are_halved_until_all_rows_fit(store, capsys):
    said = ways_of(store, capsys, bytes="1kB")
    assert [way["codes"] for way in said["ways"]] == [300, 300, 256, 128, 64, 32, 16]
    totals = [way["total"] for way in said["ways"][1:]]
    assert totals == sorted(totals, reverse=True)


def test_a_percentage_is_of_all_the_store_takes(store, capsys):
    assert ways_of(store, capsys, bytes="50%")["allowed"] == -(-store.size.total // 2)


def test_rows_that_fit_leave_room_for_what_every_store_has():
    way = Way(name="as it is", codes=8, grid=(2, 2), row_bytes=10.0, fixed_bytes=55)
    assert [way.within(allowed, 20) for allowed in (54, 64, 65, 104, 10_000)] == [0, 0, 1, 4, 20]
    assert way.total(4) == 95


@pytest.fixture
def tokenized(tmp_path):
    """(folder of images, tokenizer's run, store) of 12 images."""
    images = tiny.make_images(tmp_path / "images", {"ant": 6, "bee": 6})
    run = tiny.make_tokenizer(tmp_path / "tokenizer")
    tokenize(TokenizeConfig(images=str(images), tokenizer=str(run), output_dir=str(tmp_path / "store")))
    return images, run, TokenStore(tmp_path / "store")


def test_psnr_is_against_the_images_where_they_are_given(tokenized, capsys):
    images, run, store = tokenized
    said = ways_of(store, capsys, bytes="1GB", tokenizer=str(run), images=str(images))
    tokenizer, source = load_tokenizer(run), open_image_folder(images)
    pixels = read_all(source, range(12), tiny.IMAGE_SIZE)
    errors = (tokenizer.decode(store.ids(range(12))) - pixels).square().mean((1, 2, 3))
    assert said["ways"][0]["psnr"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=1e-3)


def test_fewer_codes_lose_something_and_the_same_codes_nothing(tokenized):
    _, run, store = tokenized
    quality = DecodedQuality(tokenizer=load_tokenizer(run), store=store, images=None, most=5)
    same = torch.arange(tiny.CODES)
    assert quality.of_codes(same) is None
    assert quality.of_codes(same // 2) < 60


def test_another_tokenizer_is_one_more_way(tokenized, tmp_path, capsys):
    images, run, store = tokenized
    other = tiny.make_tokenizer(tmp_path / "other", seed=5, codes=300)
    said = ways_of(
        store, capsys, bytes="1GB", tokenizer=str(run), images=str(images), others={"large": str(other)}
    )  # fmt: skip
    way = said["ways"][-1]
    assert (way["name"], way["codes"]) == ("tokenizer large, packed", 300)
    assert way["row_bytes"] - said["ways"][0]["row_bytes"] == pytest.approx(3)  # a ninth bit of 24 tokens
    assert np.isfinite(way["psnr"])


@pytest.mark.parametrize("size", ["0%", "120%", "ten%", "much"])
def test_a_budget_that_is_none_is_refused(store, size):
    with pytest.raises(UserError, match=r"no percentage|not a size") as raised:
        BudgetConfig(store=str(store.folder), bytes=size)
    tiny.one_line(str(raised.value))


def test_the_table_has_a_line_for_each_way_and_no_column_that_is_empty(store, capsys):
    stage.main(BudgetConfig(store=str(store.folder), bytes="10kB"))
    said = capsys.readouterr().out
    assert "PSNR" not in said
    assert said.count("fewer codes, coded") == 5
