"""How features of a store's rows are made: from a frozen encoder, from tokens without one, from pixels."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from seitpp.finetune.probing.feature_file import FeatureRecipe
from seitpp.mtm.encoder import Pooling, TokenEncoder, pool
from seitpp.mtm.stems import StemAdapter
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.sources.selected import images_of_keys
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokens.code_factors import factors_of
from seitpp.tokens.codebook import embed
from seitpp.tokens.loader import gather
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre

Autocast = Callable[..., AbstractContextManager]
Device = torch.device | str

PIXELS = (16, 16)


@dataclass(frozen=True)
class Layout:
    """Which features of an encoder are kept: (blocks, poolings, d) a row.

    Attributes:
        blocks: of so many last blocks, the final norm on each.
        poolings: of each of them.
    """

    blocks: int = 1
    poolings: tuple[Pooling, ...] = ("mean",)

    def pick(self, features: np.ndarray, pooling: Pooling = "mean") -> np.ndarray:
        """One vector a row, that of the last block: (…, blocks, poolings, d) to (…, d), not copied."""
        return features[..., -1, self.poolings.index(pooling), :]


class FrozenEncoder:
    """An encoder that gives features and learns nothing.

    Args:
        encoder: a TokenEncoder.
        store: the TokenStore whose ids it reads; of its codebook where the stem is a Stem-Adapter.
        device: where it runs.
        autocast: makes the context that it runs in, such as `accelerator.autocast`.
    """

    def __init__(
        self, encoder: TokenEncoder, store: TokenStore, *, device: Device = "cpu", autocast: Autocast = nullcontext
    ):
        self.encoder = encoder.to(device).eval().requires_grad_(False)
        self.codebook = store.codebook.to(device) if isinstance(encoder.stem, StemAdapter) else None
        self.device = torch.device(device)
        self.autocast = autocast

    @property
    def view(self) -> tuple[int, int]:
        """(h, w) tokens that it sees."""
        return self.encoder.view

    @cached_property
    def described(self) -> dict:
        """What its features depend on besides the store, the precision and the layout."""
        encoder = self.encoder
        places = {"view": encoder.view, "position_view": encoder.position_view}
        return {"weights": fingerprint_of(encoder.state_dict(), {}), **{k: list(v) for k, v in places.items()}}

    @torch.no_grad()
    def pooled(self, ids: Tensor, layout: Layout) -> Tensor:
        """Pooled features of the last blocks: (b, h, w) ids of the view to (b, blocks, poolings, d) float32."""
        taken = self._intermediates(ids, layout.blocks)
        rows = [[pool(torch.cat([cls, patches], dim=1), how) for how in layout.poolings] for patches, cls in taken]
        return torch.stack([torch.stack(each, dim=1) for each in rows], dim=1).float()

    @torch.no_grad()
    def patches(self, ids: Tensor) -> Tensor:
        """Normed features of the patches after the last block: (b, h, w) ids of the view to (b, n, d) float32."""
        return self._intermediates(ids, 1)[0][0].float()

    def _intermediates(self, ids, blocks):
        inputs = ids if self.codebook is None else embed(ids, self.codebook)
        with self.autocast():
            return self.encoder.forward_intermediates(
                inputs, blocks, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
            )


def encoder_recipe(frozen: FrozenEncoder, store: TokenStore, layout: Layout, *, precision: str) -> FeatureRecipe:
    """Pooled features of an encoder on the centre of every grid.

    Args:
        frozen: a FrozenEncoder.
        store: the TokenStore.
        layout: which of them.
        precision: "no" or what else `frozen.autocast` computes in. 16 bits are kept in float16, which holds every
            bf16 of a feature's size and more digits; all else in float32.
    """

    def make(rows):
        batch = gather(store, rows, None, rows, frozen.device)
        made = frozen.pooled(centre(batch.ids, frozen.view), layout)
        return made if precision == "no" else made.half()

    products = torch.get_float32_matmul_precision()  # "auto" on a CPU lets them be less exact than "no" does
    passes = {"precision": precision, "products": products}
    return FeatureRecipe(
        described={"store": store.fingerprint, **frozen.described, **passes, **asdict(layout)},
        shape=(layout.blocks, len(layout.poolings), frozen.encoder.width),
        dtype=np.float32 if precision == "no" else np.float16,
        make=make,
    )


def bag_of_tokens(store: TokenStore) -> FeatureRecipe:
    """Square roots of how often each code occurs in a row (Hellinger), (k,).

    Of more than 65,536 codes, of how often each value of the two numbers occurs that an id is split into.
    """
    factors = factors_of(store.codebook_size)

    def make(rows):
        ids = factors.rows(store.ids(rows)).flatten(1)
        counts = torch.zeros(len(ids), factors.total)
        return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float32)).sqrt()

    described = {"store": store.fingerprint, "of": "bag-of-tokens"}
    return FeatureRecipe(described=described, shape=(factors.total,), dtype=np.float32, make=make)


def pixels(folder: str | Path, store: TokenStore, size: Sequence[int] = PIXELS) -> FeatureRecipe:
    """The images that a store was made of, small: (3 * height * width,) in the store's order.

    Raises: UserError if the folder lacks one of them.
    """
    whole = open_image_folder(folder)
    images = images_of_keys(whole, store.keys(), where=folder, store=store.folder)
    resize = resize_of(store.manifest["preprocessing"])

    def make(rows):
        return rearrange(read_all(images, rows.tolist(), size, resize), "n c h w -> n (c h w)")

    described = {
        "store": store.fingerprint, "of": "pixels", "images": source_fingerprint(whole), "size": list(size)
    }  # fmt: skip
    return FeatureRecipe(described=described, shape=(3 * size[0] * size[1],), dtype=np.float32, make=make)


def majority_accuracy(train_targets: np.ndarray, test_targets: np.ndarray) -> float:
    """Accuracy of always answering the training set's commonest class."""
    return float((test_targets == np.bincount(train_targets).argmax()).mean())
