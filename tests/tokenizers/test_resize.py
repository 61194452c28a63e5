"""How images of another shape are resized is a part of a tokenizer's preprocessing and fingerprint."""

import json

import numpy as np
import pytest
import torch

import tiny
import vit_checkpoint
from seitpp.finetune.probing.features import pixels as pixel_features
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.reduced import ReducedTokenizer
from seitpp.tokenizers.networks.vit_vqgan import ViTVQGAN
from seitpp.tokenizers.sources.decoding.resize import DESCRIBED, RESIZES, resize_of
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import load_tokenizer

OWN = """
import torch

class Own(torch.nn.Module):
    name, image_size, grid, codebook_size, lookup = "own", (16, 24), (2, 3), 8, "euclidean"
    preprocessing = {PREPROCESSING}

    def __init__(self):
        super().__init__()
        self.codebook = torch.nn.Parameter(torch.arange(8.0)[:, None])

    def encode(self, images):
        return images.mean((1, 2, 3))[:, None, None].mul(7).long().expand(-1, 2, 3)

    def decode(self, ids):
        return torch.zeros(len(ids), 3, 16, 24)
"""


def make(kind, folder):
    """Save a tokenizer of a kind; returns its folder."""
    if kind == "vit_vqgan":
        torch.manual_seed(0)
        ViTVQGAN(vit_checkpoint.TINY).save(folder)
        return folder
    tiny.make_tokenizer(folder)
    if kind == "reduced":
        mapping = torch.arange(tiny.CODES).clamp(max=9)
        ReducedTokenizer(load_tokenizer(folder), list(range(10)), mapping).save(folder / "reduced")
        return folder / "reduced"
    return folder


@pytest.mark.parametrize("kind", ["vq", "vit_vqgan", "reduced"])
def test_each_resize_has_a_fingerprint_of_its_own_that_lasts(tmp_path, kind):
    folder = make(kind, tmp_path / "tokenizer")
    prints = {resize: load_tokenizer(folder, resize=resize).fingerprint for resize in RESIZES}
    assert len(set(prints.values())) == 3
    assert load_tokenizer(folder).fingerprint == prints["crop"]
    for resize in RESIZES:
        load_tokenizer(folder, resize=resize).save(tmp_path / resize)
        again = load_tokenizer(tmp_path / resize)
        assert (again.resize, resize_of(again.preprocessing)) == (resize, resize)
        assert again.fingerprint == prints[resize]
        assert load_tokenizer(folder, fingerprint=prints[resize]).resize == resize
    assert load_tokenizer(tmp_path / "pad", fingerprint="0" * 64).resize == "pad"


def test_a_tokenizer_of_before_there_was_a_resize_crops(tmp_path):
    folder = make("vq", tmp_path / "tokenizer") / "weights"
    described = json.loads((folder / "tokenizer.json").read_text())
    fingerprint = load_tokenizer(folder).fingerprint
    assert described.pop("resize") == "crop"
    (folder / "tokenizer.json").write_text(json.dumps(described))
    assert (load_tokenizer(folder).resize, load_tokenizer(folder).fingerprint) == ("crop", fingerprint)
    assert resize_of({}) == resize_of({"resize": "in words of another program"}) == "crop"
    (folder / "tokenizer.json").write_text(json.dumps({**described, "resize": "stretch"}))
    with pytest.raises(UserError, match="resize is 'stretch', expected 'crop' or 'pad' or 'squash'"):
        load_tokenizer(folder)


def test_a_custom_class_says_it_in_its_preprocessing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_squash.py").write_text(OWN.replace("{PREPROCESSING}", repr({"resize": DESCRIBED["squash"]})))
    assert resize_of(load_tokenizer("own_squash:Own").preprocessing) == "squash"
    assert load_tokenizer("own_squash:Own", resize="squash").name == "own"
    with pytest.raises(UserError, match="images are resized by squash: leave out --resize"):
        load_tokenizer("own_squash:Own", resize="pad")
    wide = [np.concatenate([np.full((16, 80, 3), level, np.uint8) for level in (0, 255, 255)], axis=1)]
    assert tokenize_images(wide, "own_squash:Own").unique().tolist() == [4]  # 7 x 2/3; the centre alone is white


def test_pixels_of_a_probe_are_resized_as_the_stores_images_were(tmp_path, tokenizer_folder):
    folder = tiny.make_images(tmp_path / "wide", {"ant": 3}, size=(16, 96))
    for resize in RESIZES:
        store = tokenize_images(folder, tokenizer_folder, output_dir=tmp_path / resize, resize=resize)
        expected = read_all(open_image_folder(folder), range(3), (16, 16), resize).flatten(1)
        assert pixel_features(folder, store).make(np.arange(len(store))).tolist() == expected.tolist()
