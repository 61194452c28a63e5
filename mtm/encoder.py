"""The ViT that pre-training leaves behind. Its stem (`seitpp.mtm.stems`) says what it reads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seitpp.mtm.patches import interpolate_positions, patchify, unpatchify
from seitpp.runtime.config import require, require_between
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.positions import sincos_positions
from seitpp.tokens.one_dimensional import Geometry

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the encoder. Defaults: ViT-B/2 on 28 x 28 tokens as in the papers."""

    width: int = 768
    """embedding dimension"""
    depth: int = 12
    """blocks"""
    heads: int = 12
    """attention heads"""
    patch_size: int = 2
    """tokens a side of a patch (pixels, of an encoder that reads pixels)"""
    token_dropout: float = 0.1
    """dropout of token embeddings"""
    embedding_std: float = 0.02
    """std of the initial token embeddings. Short trainings want about 1 / sqrt(embedding dimension)"""
    code_factors: tuple[int, ...] | None = None
    """bits of the numbers that an id is split into, the lowest first, such as 6,12: each has embeddings, which add up,
    and a softmax of its own. One number: the id itself. None: the id of up to 65,536 codes; of more, two numbers of a
    third and two thirds of its bits, as Open-MAGVIT2"""
    embedding_init: Literal["normal", "codebook"] = "normal"
    """normal: at random, as published; codebook: the tokenizer's own embeddings, each channel centred and scaled to
    embedding_std, so that like codes start alike: small stores learn much faster"""

    def __post_init__(self):
        for name, most in {"width": 65536, "depth": 1000, "heads": 65536, "patch_size": 1024}.items():
            require_between(self, name, 1, most)
        fits = self.width % 4 == 0 and self.width % self.heads == 0
        require(self, "width", fits, f"must be a multiple of 4 and of heads = {self.heads}")
        require(self, "token_dropout", 0 <= self.token_dropout < 1, "must lie in [0, 1)")
        require(self, "embedding_std", self.embedding_std > 0, "must be above 0")
        bits = (1,) if self.code_factors is None else self.code_factors
        require(self, "code_factors", bits and all(1 <= each <= 24 for each in bits), "must be numbers from 1 to 24")


class Stem(nn.Module, ABC):
    """What every stem offers: `forward` makes patch embeddings (b, n, d) without positions, patches row by row.

    Attributes:
        patch_size: tokens a side of a patch.
    """

    patch_size: int

    @property
    @abstractmethod
    def table(self) -> Tensor | None:
        """What each id is looked up as, (k, c); None where it reads embeddings alone.

        `forward` takes such embeddings, (b, c, h, w), for ids (b, h, w).
        """

    @abstractmethod
    def initialise_patches(self) -> None:
        """Draw the weights that make patches."""

    def initialise_embeddings(self) -> None:
        """Draw the token embeddings, where there are any. The encoder calls it last."""

    def start_from(self, codebook: Tensor, config: EncoderConfig) -> None:
        """Set the token embeddings, where there are any, to a codebook, (k, c), if the configuration asks for it."""


AnyStem = TypeVar("AnyStem", bound=Stem)
Pooling = Literal["mean", "cls"]
"""mean: over patches, without the cls token; cls: the cls token."""


def fitting_view(
    view: Sequence[int] | None, grid: Sequence[int], patch_size: int, geometry: Geometry = "grid"
) -> tuple[int, ...]:
    """The view of a model: the one asked for, or all of the stored grid.

    Args:
        view: (h, w) tokens, or None.
        grid: (h, w) of the store.
        patch_size: tokens a side of a patch.
        geometry: of the tokens; one-dimensional ones ("none") are seen whole, each a patch.
    Raises: UserError if it is larger than the grid or no multiple of the patch size, or cuts one-dimensional tokens.
    """
    view = tuple(view or grid)
    if geometry == "none" and (view != tuple(grid) or patch_size != 1):
        cut = f"a view of {view} of the {tuple(grid)}" if view != tuple(grid) else f"patches of {patch_size} tokens"
        raise UserError(
            f"one-dimensional tokens, whose places are no places in the image, are seen whole and one by one, not in "
            f"{cut}: set the encoder's patch_size to 1, and no --view"
        )
    if any(side > whole or side < 1 or side % patch_size for side, whole in zip(view, grid, strict=True)):
        raise UserError(
            f"a view of {view} tokens must fit into the stored grid of {tuple(grid)} and be a multiple of the patch "
            f"size {patch_size}: set --view"
        )
    return view


def patch_grid_of(view: Sequence[int], patch_size: int) -> tuple[int, int]:
    """(rows, columns) of patches of a view of (h, w) tokens.

    Raises: ValueError if the view is not a multiple of the patch size.
    """
    height, width = view
    if height % patch_size or width % patch_size:
        raise ValueError(f"a view of {tuple(view)} tokens can't be divided into patches of {patch_size}")
    return height // patch_size, width // patch_size


class TokenEncoder(nn.Module, Generic[AnyStem]):
    """Stem, positions, pre-norm blocks: (b, h, w) ids, or what else the stem reads, to (b, 1 + n, d), cls first.

    Positions are fixed sines and cosines, or learned; the cls token has none. On a view of another size than the one
    that the weights were trained at (`position_view`, or `set_view` later) the first patch is still at the start and
    the last at the end: MAE and DeiT interpolate their tables, MAE its fixed one too. Here learned tables are
    interpolated and fixed ones evaluated at the places between, which is the same without interpolation's error.
    A fixed table that is built anew in steps of one would have places far outside those that the blocks know.

    Args:
        config: an EncoderConfig.
        stem: makes the patch embeddings, of `config.width`.
        view: (h, w) tokens of the grid that the model sees, multiples of the patch size. A stored grid may be larger.
        position_view: the view that the weights were trained at; None: `view`.
        learned_positions: positions are trained, from the fixed ones on.
        final_norm: there is a norm after the blocks, `norm`; without it, that is the identity, as in timm's ViT.
        drop_path: stochastic depth of the last block; earlier blocks less, linearly.

    Attributes:
        view: (h, w) tokens.
        patch_grid: (rows, columns) of patches.
        pos_embed: (n, d), a parameter if positions are learned.
        grad_checkpointing: whether blocks keep their input alone and are computed again in the backward pass: about a
            third more time, for a fraction of the memory.
    Raises: ValueError if a view is not a multiple of the patch size.
    """

    pos_embed: Tensor

    def __init__(
        self, config: EncoderConfig, stem: AnyStem, *, view: Sequence[int], position_view: Sequence[int] | None = None,
        learned_positions: bool = False, final_norm: bool = True, drop_path: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.width = config.width
        self.grad_checkpointing = False
        self.patch_size = stem.patch_size
        self._place(view, position_view or view)
        self.stem = stem
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if learned_positions:
            self.pos_embed = nn.Parameter(self._fixed_positions())
        else:
            self.register_buffer("pos_embed", self._fixed_positions(), persistent=False)
        rates = torch.linspace(0.0, drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            [Block(config.width, config.heads, qkv_bias=True, drop_path=rate, norm_layer=LAYER_NORM) for rate in rates]
        )
        self.norm = LAYER_NORM(config.width) if final_norm else nn.Identity()
        self._initialise()
        self.register_load_state_dict_pre_hook(_name_as_now)

    def _initialise(self) -> None:
        """Xavier uniform for matrices and the patch convolution, 0.02 for the cls token, `embedding_std` for codes.

        The order is that in which a seed's numbers are drawn: another one would be another model.
        """
        initialise_linear(self)
        self.stem.initialise_patches()
        nn.init.normal_(self.cls_token, std=0.02)
        self.stem.initialise_embeddings()

    def _place(self, view: Sequence[int], position_view: Sequence[int]) -> None:
        self.patch_grid = patch_grid_of(view, self.patch_size)
        self.position_grid = patch_grid_of(position_view, self.patch_size)
        self.view = (view[0], view[1])

    def _fixed_positions(self) -> Tensor:
        return sincos_positions(self.width, self.patch_grid, spanning=self.position_grid)

    @property
    def position_view(self) -> tuple[int, int]:
        """(h, w) tokens of the view that the positions were made for."""
        return self.position_grid[0] * self.patch_size, self.position_grid[1] * self.patch_size

    @property
    def learned_positions(self) -> bool:
        """Whether positions are trained."""
        return isinstance(self.pos_embed, nn.Parameter)

    @torch.no_grad()
    def set_view(self, view: Sequence[int]) -> None:
        """See views of another size from now on, in place.

        Learned positions become a new parameter, so call it before there is an optimizer; each change interpolates
        what the last one made, while fixed positions come back as they were. The encoder of a MaskedTokenModel must be
        taken out of it first: the decoder's positions do not change.

        Args:
            view: (h, w) tokens; for the present one nothing changes.
        Raises: ValueError if it is not a multiple of the patch size.
        """
        before, table = self.patch_grid, self.pos_embed
        self._place(view, self.position_view)
        if self.patch_grid == before:
            return
        if self.learned_positions:
            resized = interpolate_positions(table, before, self.patch_grid)
            self.pos_embed = nn.Parameter(resized, requires_grad=table.requires_grad)
        else:
            self.pos_embed = self._fixed_positions().to(table)

    def patchify(self, maps: Tensor) -> Tensor:
        """Maps of the view by patch: (b, h, w) to (b, n, p * q)."""
        return patchify(maps, self.patch_size)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches put together to maps of the view: (b, n, p * q) to (b, h, w)."""
        return unpatchify(patches, self.patch_grid, self.patch_size)

    def embed(self, inputs: Tensor) -> Tensor:
        """Patch embeddings without positions: what the stem reads, (b, …, h, w), to (b, n, d).

        Raises: ValueError if the input is not of the view's size.
        """
        if tuple(inputs.shape[-2:]) != self.view:
            raise ValueError(f"this encoder sees {self.view} tokens, got {tuple(inputs.shape[-2:])}: see `set_view`")
        return self.stem(inputs)

    def _with_cls(self, patches: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """Blocks over patches that carry their positions, the cls token before them: (b, n, d) to (b, 1 + n, d)."""
        x = self._with_cls(x)
        for block in self.blocks:
            x = self._through(block, x)
        return x

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of whole views before the final norm: (b, h, w) ids to (b, 1 + n, d), cls first."""
        return self.encode(self.embed(inputs) + self.pos_embed)

    def pooled(self, inputs: Tensor, pooling: Pooling = "mean") -> Tensor:
        """Normed features, pooled after the norm: (b, h, w) ids to (b, d)."""
        return pool(self.norm(self(inputs)), pooling)

    def forward_intermediates(
        self, inputs: Tensor, indices: int | Sequence[int] | None = None, return_prefix_tokens: bool = False,
        norm: bool = False, stop_early: bool = False, output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:  # fmt: skip
        """Features after several blocks, as `forward_intermediates` of timm's VisionTransformer gives them.

        Args:
            inputs: what the stem reads, (b, h, w) ids or (b, c, h, w) embeddings.
            indices: the last so many blocks, or which (from 0, negative from the end; in the order of the blocks, each
                once); None: all.
            return_prefix_tokens: pair each with its cls token, (b, 1, d).
            norm: put the final norm on intermediates too.
            stop_early: skip the blocks after the last that is asked for; the final features are then its.
            output_fmt: NCHW: (b, d, rows, columns) of the patch grid; NLC: (b, n, d). Both without the cls token.
            intermediates_only: leave out the final features.
        Returns: list of intermediates, each a tensor or (tensor, prefix); or (final features with the norm,
            (b, 1 + n, d), that list).
        Raises: ValueError for another format or a block that is not there.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        wanted = block_indices(len(self.blocks), indices)
        x, taken = self._with_cls(self.embed(inputs) + self.pos_embed), []
        for index, block in enumerate(self.blocks[: max(wanted) + 1] if stop_early else self.blocks):
            x = self._through(block, x)
            if index in wanted:
                taken.append(self.norm(x) if norm else x)
        results: list[Any] = [each[:, 1:] for each in taken]
        if output_fmt == "NCHW":
            rows = self.patch_grid[0]
            results = [rearrange(each, "b (h w) d -> b d h w", h=rows).contiguous() for each in results]
        if return_prefix_tokens:
            results = list(zip(results, [each[:, :1] for each in taken], strict=True))
        return results if intermediates_only else (self.norm(x), results)


def block_indices(depth: int, indices: int | Sequence[int] | None) -> list[int]:
    """Which blocks, from 0, ascending: the last `indices`, or those named (negative from the end); None: all.

    Raises: ValueError if there is no such block, or none is asked for.
    """
    if indices is None:
        indices = depth
    if isinstance(indices, int):
        named = range(depth - indices, depth) if 0 < indices <= depth else []
    else:
        named = [index + depth if index < 0 else index for index in indices]
    if not named or not all(0 <= index < depth for index in named):
        raise ValueError(f"indices = {indices} must name some of {depth} blocks")
    return sorted(set(named))


def pool(features: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each sample: (b, 1 + n, d), cls first, to (b, d).

    Raises: ValueError for another pooling.
    """
    if pooling == "mean":
        return features[:, 1:].mean(dim=1)
    if pooling == "cls":
        return features[:, 0]
    raise ValueError(f"pooling must be mean or cls, got {pooling!r}")


_RENAMED = {
    "embeddings.": "stem.embeddings.",
    "embedding_norm.": "stem.embedding_norm.",
    "patches.": "stem.patches.",
}
"""Beginnings of an encoder's names in weights that were written before it had a stem, and those of now."""


def _name_as_now(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Have weights of before load: rename what begins as in `_RENAMED`, in the copy that torch loads from."""
    for name in list(state_dict):
        for before, now in _RENAMED.items():
            if name.startswith(prefix + before):
                state_dict[prefix + now + name.removeprefix(prefix + before)] = state_dict.pop(name)


def initialise_linear(module: nn.Module) -> None:
    """Xavier uniform weights and zero biases for every Linear, as MAE."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
