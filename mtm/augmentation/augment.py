"""The augmentation of a training step, on tokens: ids go in, ids of augmented views come out.

    ids → Token-EDA → embeddings → ColorAdapt or Emb-Noise → half: random resized crop │ half: TokenAdapt's f and warp
        → in each half: CutMix or Mixup → nearest code │ g → ids

A model with SeiT's Stem-Adapter takes embeddings: crops then stay what they became, and the other half's ids are looked
up. What is switched off is not computed. There is no loop over samples and no host synchronisation.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from einops import rearrange

from seitpp.mtm.augmentation.appearance import AppearanceConfig, recolour
from seitpp.mtm.augmentation.eda import EdaConfig, TokenEda
from seitpp.mtm.augmentation.mixing import Mix, MixConfig, Mixing
from seitpp.mtm.augmentation.own import OwnView
from seitpp.runtime.config import require
from seitpp.runtime.devices import compile_in_place
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import file_fingerprint, weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.tokenadapt.geometry import GeometryConfig, sample_crop, sample_geometry, warp
from seitpp.tokenadapt.model import adapt_ids, load_token_adapt
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.tokens.one_dimensional import refuse_geometry
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(AppearanceConfig):
    """How training views are made from stored tokens."""

    token_adapt: Location | None = None
    """run or weights of TokenAdapt, applied to every second sample; None: all samples are only cropped"""
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    """crops of all samples; flips and affine maps of those that TokenAdapt transforms"""
    crop: bool = True
    """random resized crops; without, samples that TokenAdapt leaves alone are cut to the view at their centre"""
    eda: EdaConfig = field(default_factory=EdaConfig)
    """edits of the stored ids"""
    mix: MixConfig = field(default_factory=MixConfig)
    """mixtures of two samples, and of their labels where there are any"""
    own: str | None = None
    """package.module:Class, a view of your own that comes last, called with ids (b, h, w) and the step's Draws"""

    @property
    def name(self) -> str:
        """What results call it, such as "tokenadapt+coloradapt": the papers' two parts, where they are on."""
        parts = {"tokenadapt": self.token_adapt is not None, "coloradapt": self.color_adapt > 0}
        return "+".join(name for name, on in parts.items() if on)


def fingerprints(config: AugmentConfig) -> dict[str, str | None]:
    """Of the files that an augmentation reads: data of a RunFolder whose configuration has it as `augment`."""
    token_adapt, synonyms = config.token_adapt, config.eda.synonym_file
    return {
        "augment.token_adapt": token_adapt and weights_fingerprint(token_adapt),
        "augment.eda.synonym_file": synonyms and file_fingerprint(synonyms),
    }


def check_geometry(config: AugmentConfig, store: TokenStore) -> None:
    """Refuse what moves, cuts or mixes tokens by their places, where these are no places in the image.

    Raises: UserError naming all of it, if the store's tokens are one-dimensional.
    """
    wanted = {
        "TokenAdapt": (config.token_adapt is not None, "leave out --augment.token_adapt"),
        "crops": (config.crop, "--augment.crop false"),
        "swaps of squares": (config.eda.swap > 0, "--augment.eda.swap 0"),
        "CutMix": (config.mix.cutmix > 0, "--augment.mix.cutmix 0 (Mixup works)"),
    }
    refuse_geometry(store, store.folder, {name: advice for name, (on, advice) in wanted.items() if on})


class Augment:
    """The pipeline of one training, its frozen networks with it.

    Args:
        config: an AugmentConfig.
        store: the TokenStore that ids come from.
        view: (h, w) of the views.
        device: where it runs.
        autocast: makes the context that TokenAdapt runs in, such as `accelerator.autocast`. All else is computed in
            float32: in 16 bits many an embedding would be nearest to another code.
        compiled: whether torch.compile makes the passes of TokenAdapt's blocks.
        as_embeddings: whether views are embeddings (b, c, h', w') instead of ids (b, h', w').
    Raises: UserError if TokenAdapt belongs to another tokenizer, grid or view, or the store's tokens are
        one-dimensional and something of this needs their places.
    """

    def __init__(
        self, config: AugmentConfig, *, store: TokenStore, view: Sequence[int], device: torch.device | str,
        autocast: Callable[[], AbstractContextManager] = nullcontext, compiled: bool = False,
        as_embeddings: bool = False,
    ):  # fmt: skip
        check_geometry(config, store)
        self.config = config
        self.autocast = autocast
        self.as_embeddings = as_embeddings
        self.view = tuple(view)
        self.grid = store.grid
        self.codebook = store.codebook.to(device)
        self.lookup = store.lookup
        self.codebook_std = self.codebook.std()
        if self.view[0] > self.grid[0] or self.view[1] > self.grid[1]:
            raise UserError(f"a view of {self.view} tokens does not fit into stored grids of {self.grid}")
        self.eda = None
        if config.eda.synonyms + config.eda.swap > 0:
            self.eda = TokenEda(config.eda, store=store, device=device)
        self.token_adapt = None
        if config.token_adapt is not None:
            self.token_adapt, fingerprint = load_token_adapt(config.token_adapt, device)
            codes = self.token_adapt.described["codebook_size"]
            store.check_tokenizer(fingerprint, f"TokenAdapt in {config.token_adapt}", codes)
            if (self.token_adapt.grid, self.token_adapt.view) != (store.grid, self.view):
                raise UserError(
                    f"{config.token_adapt} takes {self.token_adapt.grid} tokens to {self.token_adapt.view}; this "
                    f"training needs {store.grid} to {self.view}: train TokenAdapt for it"
                )
            if compiled:
                compile_in_place(self.token_adapt)
        mix = config.mix
        self.own = None
        if config.own is not None:
            require(config, "own", not as_embeddings, "changes ids, and this model reads embeddings: leave it out")
            self.own = OwnView(config.own, view=(self.view[0], self.view[1]), codes=len(self.codebook), device=device)
        self.mixing = self.adapted_mixing = None  # of crops, and of TokenAdapt's half
        if mix.cutmix + mix.mixup + (mix.adapted_mixup if self.token_adapt else 0.0) > 0:
            make = partial(Mixing, mix, pairing=config.partners, view=self.view, device=device)
            self.mixing, self.adapted_mixing = make(mixup=mix.mixup), make(mixup=mix.adapted_mixup)

    @torch.no_grad()
    def __call__(self, ids, draws):
        """Augmented views: ids (b, h, w) of the store's grid to ids (b, h', w') of the view, or its embeddings."""
        return self._views(ids, draws)[0]

    def views(self, ids: torch.Tensor, *, seed: int, step: int = 0) -> torch.Tensor:
        """Augmented views in a loop of one's own: the same for the same seed, step and place in the batch.

        Args:
            ids: (b, h, w) int64 of the store's grid; pairs of samples are mixed and recoloured, so b is even.
            seed: of the run.
            step: of the training, so that each draws anew.
        Returns: (b, h', w') int64 of the view.
        """
        return self(ids, Draws(seed, step, torch.arange(len(ids), device=ids.device)))

    @torch.no_grad()
    def mixed(
        self, ids: torch.Tensor, labels: torch.Tensor, draws: Draws, *, classes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented views, and targets that know what they were mixed of.

        Args:
            ids: (b, h, w) int64.
            labels: (b,) int64; or (b, classes), 1 for each class that a row has, where it may have several.
            draws: the Draws of the batch.
            classes: how many.
        Returns: (views, targets for F.cross_entropy: probabilities (b, classes), or `labels` themselves where nothing
            is mixed).
        """
        views, mix = self._views(ids, draws)
        return views, labels if mix is None else mix.targets(labels, classes)

    def _views(self, ids, draws):
        """Views and their Mix, None where nothing is mixed."""
        views, mix = self._suite_views(ids, draws)
        return views if self.own is None else self.own(views, draws), mix

    def _suite_views(self, ids, draws):
        config = self.config
        self._check_pairs(len(ids))
        if self.eda is not None:
            ids = self.eda(ids, draws)
        if not (config.recolours or config.crop or self.token_adapt or config.mix.mixup > 0):
            mix, views = _sample(self.mixing, draws), centre(ids, self.view)
            return self._looked_up(views if mix is None else mix.ids(views)), mix
        embeddings = embed(ids, self.codebook)
        if config.recolours:
            embeddings = recolour(embeddings, draws, config, codebook_std=self.codebook_std)
        if self.token_adapt is None:
            mix = _sample(self.mixing, draws)
            return self._crop(embeddings, draws, mix), mix
        even, odd = draws[0::2], draws[1::2]
        mix, adapted_mix = _sample(self.mixing, even), _sample(self.adapted_mixing, odd)
        cropped = self._crop(embeddings[0::2], even, mix)
        adapted = self._looked_up(self._adapt(embeddings[1::2], odd, adapted_mix))
        views = rearrange([cropped, adapted], "half b ... -> (b half) ...")
        return views, None if mix is None else in_turn(mix, adapted_mix)

    def _check_pairs(self, count):
        """Refuse a batch that leaves someone without a partner."""
        mixes = self.mixing is not None
        multiple = 4 if mixes and self.token_adapt else 2
        if count % multiple and (mixes or self.token_adapt or self.config.color_adapt > 0):
            raise UserError(
                f"ColorAdapt, TokenAdapt and mixing work on pairs of samples: --batch_size {count} must be "
                f"{'even' if multiple == 2 else 'a multiple of 4, as each half has pairs of its own'}"
            )

    def _crop(self, embeddings, draws, mix):
        if self.config.crop:
            crop = sample_crop(self.config.geometry, draws, self.grid[1] / self.grid[0])
            maps = warp(embeddings, crop, self.view, mode="bicubic")
        else:
            maps = centre(embeddings, self.view)
        if self.as_embeddings:
            return maps if mix is None else mix.maps(maps)
        if mix is None:
            return nearest_code(maps, self.codebook, self.lookup)
        if self.config.mix.mixup > 0:
            return nearest_code(mix.maps(maps), self.codebook, self.lookup)
        return mix.ids(nearest_code(maps, self.codebook, self.lookup))  # the same where shares are whole, for less

    def _looked_up(self, ids):
        return embed(ids, self.codebook) if self.as_embeddings else ids

    def _adapt(self, embeddings, draws, mix):
        geometry = sample_geometry(self.config.geometry, draws, self.grid[1] / self.grid[0])

        def transform(features):
            warped = warp(features, geometry, self.token_adapt.map_size)
            return warped if mix is None else mix.maps(warped)

        with self.autocast():
            return adapt_ids(self.token_adapt, embeddings, transform)


def _sample(mixing, draws):
    return None if mixing is None else mixing.sample(draws)


def in_turn(even: Mix, odd: Mix) -> Mix:
    """The Mix of a batch whose even and whose odd places were mixed by themselves."""
    return Mix(
        partners=rearrange([2 * even.partners, 2 * odd.partners + 1], "half b -> (b half)"),
        own=rearrange([even.own, odd.own], "half b h w -> (b half) h w"),
    )
