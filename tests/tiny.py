"""A tiny world: images, tokenizers and stores small enough that a test takes milliseconds, with unequal sides."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

from seitpp.tokens.codec import pack
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import write_manifest, write_shard

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
IMAGE_SIZE = (16, 24)
GRID = (4, 6)
CODES = 37


def make_images(folder, counts, *, seed=0, size=IMAGE_SIZE, lopsided=False):
    """Write a folder of class folders of PNGs: each class has its own hue, each image its own stripes.

    `lopsided` images have a left half of another colour, and stripes in it only: flipped, they are other images.
    """
    random = np.random.default_rng(seed)
    height, width = size
    for hue, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((height, width, 3), 60 + random.integers(60), np.uint8)
            pixels[..., hue % 3] += 100
            top = random.integers(height - 3)
            if lopsided:
                pixels[:, : width // 2] = random.integers(256, size=3)
            pixels[top : top + 3, : width // 2 if lopsided else width] = random.integers(256, size=3)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    return folder


def make_tokenizer(folder, *, seed=0, codes=CODES, image_size=IMAGE_SIZE):
    """Save an untrained VQTokenizer with random codes, mean 0 and deviation 1; returns the folder."""
    from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer

    torch.manual_seed(seed)
    config = VQConfig(
        image_size=image_size, space_to_depth=4, widths=(32,), attention=False, codebook_size=codes, codebook_dim=5
    )
    tokenizer = VQTokenizer.untrained(config).requires_grad_(False)
    tokenizer.codebook.copy_(torch.randn(codes, 5))
    tokenizer.save(folder / "weights")
    return folder


def make_titok(folder, *, seed=0, codes=CODES, image_size=IMAGE_SIZE, tokens=7):
    """Save an untrained TiTok, whose tokens are a row without geometry, with random codes; returns the folder."""
    from seitpp.tokenizers.networks.titok import SideConfig, TiTok, TiTokConfig

    torch.manual_seed(seed)
    side = SideConfig(width=64, depth=1)
    tokenizer = TiTok(
        TiTokConfig(
            image_size=image_size, patch_size=8, tokens=tokens, encoder=side, decoder=side, codebook_size=codes,
            codebook_dim=5, pixel_decoder=None,
        )
    ).requires_grad_(False)  # fmt: skip
    for name, parameter in tokenizer.named_parameters():
        if name.endswith(("positions", "_token", "_tokens")):
            parameter.normal_()
    tokenizer.to_patches.weight.mul_(10)
    tokenizer.encoder.blocks[0].attn.qkv.weight.mul_(5)
    tokenizer.encoder.blocks[0].attn.proj.weight.mul_(10)
    tokenizer.smooth.bias.fill_(0.5)
    tokenizer.save(folder / "weights")
    return folder


def make_token_adapt(folder, *, grid=GRID, view=GRID, codes=CODES, dim=5, fingerprint="a" * 64):
    """Save a TokenAdapt with random weights; returns the folder."""
    from seitpp.runtime.weights import save_weights
    from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig

    torch.manual_seed(1)
    model = TokenAdapt(TokenAdaptConfig(width=64), grid=grid, view=view, codebook_size=codes, embedding_dim=dim)
    save_weights(folder / "weights", model.state_dict(), {**model.described, "tokenizer": fingerprint})
    return folder


def make_mtm(folder, *, grid=GRID, view=GRID, codes=CODES, dim=5, fingerprint="a" * 64):
    """Save a masked token model with random weights; returns the folder."""
    from seitpp.mtm.encoder import EncoderConfig
    from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, save_model

    torch.manual_seed(2)
    encoder = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, embedding_std=0.5)
    config = ModelConfig(encoder=encoder, decoder=DecoderConfig(width=16, depth=1, heads=2))
    model = MaskedTokenModel(config, view=view, codebook_size=codes, embedding_dim=dim)
    save_model(folder / "weights", model, tokenizer=fingerprint, grid=grid)
    return folder


def random_ids(rows, codes, grid, *, seed=0):
    """(rows, h, w) int64, every id as likely."""
    return torch.from_numpy(np.random.default_rng(seed).integers(codes, size=(rows, *grid)))


def make_store(
    folder, ids, *, codes=CODES, labels=None, classes=("ant", "bee", "cow"), keys=None, rows_per_shard=7, dim=5,
    fingerprint="a" * 64, lookup="euclidean", codebook=None, targets=None, mask=None,
):  # fmt: skip
    """Write a store of given ids, several shards, with a random codebook; returns the folder."""
    folder = Path(folder)
    rows = len(ids)
    labels = np.arange(rows) % len(classes) if labels is None else np.asarray(labels)
    keys = [f"{row:04d}.png" for row in range(rows)] if keys is None else keys
    packed = pack(ids, codes).numpy()
    shards = []
    for start in range(0, rows, rows_per_shard):
        part = slice(start, start + rows_per_shard)
        path = folder / f"shard-{len(shards):05d}.arrow"
        shards.append(write_shard(path, packed[part], labels[part], keys[part], (targets or Targets())[part]))
    if codebook is None:
        codebook = torch.from_numpy(np.random.default_rng(3).standard_normal((codes, dim))).float()
    write_manifest(
        folder,
        tokenizer={"name": "vq", "fingerprint": fingerprint},
        codebook=codebook,
        lookup=lookup,
        grid=ids.shape[1:],
        preprocessing={},
        classes=list(classes),
        shards=shards,
        mask=mask,
    )
    return folder


def striped_ids(labels, grid, *, codes=CODES, seed=0):
    """Ids that tell the label: class i fills its maps with ids near 7 i, in rows that vary by sample."""
    random = np.random.default_rng(seed)
    labels = np.asarray(labels)
    noise = random.integers(3, size=(len(labels), *grid))
    return torch.from_numpy((7 * labels[:, None, None] + noise) % codes)


def forget_accelerator():
    """Have Accelerate choose device and precision anew: it keeps what the first Accelerator of a process chose."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run(*words, timeout=120, **environment):
    """Run `python words...` in a fresh process; returns CompletedProcess with text output."""
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **environment}, cwd=ROOT,
    )  # fmt: skip


def one_line(text):
    """The only line of a text, checked to be the only one."""
    lines = re.sub(r"\n+$", "", text).split("\n")
    assert len(lines) == 1, f"one line expected, got:\n{text}"
    return lines[0]


def shown_pictures(run, name):
    """Pictures of evaluations that TensorBoard shows of a run: [(step, (height, width, 3) uint8)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(run)
    events = EventAccumulator(str(folder / "tensorboard" / folder.name), size_guidance={"images": 0}).Reload()
    return [
        (shown.step, np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")))
        for shown in events.Images(f"eval/{name}")
    ]
