"""What an exploration finds and leaves: neighbours of some rows, and the map of many, as tables and a picture."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from seitpp.finetune.evaluation_files import decoded_rows
from seitpp.finetune.evaluation_pictures import captioned_images
from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.probing.feature_map import feature_map
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.nearest import neighbours_of
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.sources.selected import images_of_keys
from seitpp.tokenizers.sources.source import ImageSource, source_fingerprint
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.order.permutation import permute
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from seitpp.finetune.explore import ExploreConfig

SIDE = 128
"""pixels of the longer side of an image that is read to be shown"""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where pictures of rows come from; nothing: there are none.

    Attributes:
        tokenizer: decodes them.
        images: without it, of (training, test) stores.
    """

    tokenizer: Tokenizer | None = None
    images: tuple[ImageSource, ...] = ()
    fingerprints: dict[str, str] = field(default_factory=dict)

    def of(self, labelled: LabelledRows, rows: np.ndarray, *, source: int) -> torch.Tensor:
        """Some rows of a store, (n, 3, h, w) in [0, 1].

        Args:
            labelled: LabelledRows of the store.
            rows: of the store, (n,).
            source: which of `images` it was made of.
        """
        store = labelled.store
        if self.tokenizer is not None:
            return decoded_rows(store, rows, self.tokenizer)
        longer = max(store.grid)
        size = (round(SIDE * store.grid[0] / longer), round(SIDE * store.grid[1] / longer))
        keys = keys_of(store, rows)
        images = images_of_keys(self.images[source], keys, where="the images", store=store.folder)
        return read_all(images, list(range(len(keys))), size, resize_of(store.manifest["preprocessing"]))


def open_pictures(
    config: "ExploreConfig", sets: tuple[LabelledRows, LabelledRows], device: torch.device | str
) -> Pictures:
    """What rows are drawn with.

    Raises: UserError if the tokenizer is another one than the stores', or a folder lacks their first image.
    """
    if config.tokenizer is not None:
        store = sets[0].store
        tokenizer = load_tokenizer(config.tokenizer, device, fingerprint=store.tokenizer["fingerprint"])
        store.check_tokenizer(tokenizer.fingerprint, f"the one in {config.tokenizer}", tokenizer.codebook_size)
        return Pictures(tokenizer=tokenizer)
    if config.images is None or config.eval_images is None:
        return Pictures()
    folders = (config.images, config.eval_images)
    images = tuple(open_image_folder(folder) for folder in folders)
    for folder, source, each in zip(folders, images, sets, strict=True):
        images_of_keys(source, keys_of(each.store, each.rows[:1]), where=folder, store=each.store.folder)
    found = {name: source_fingerprint(each) for name, each in zip(("images", "eval_images"), images, strict=True)}
    return Pictures(images=images, fingerprints=found)


def look(
    train: FeatureSet, test: FeatureSet, config: "ExploreConfig", pictures: Pictures, *, device: torch.device | str
) -> dict[str, Any]:
    """Find neighbours, make the map, write both into the run folder; memory is that of the rows that are shown.

    Args:
        train: FeatureSet of (rows, d) features, searched for neighbours.
        test: FeatureSet, likewise, whose rows ask and are mapped.
        config: an ExploreConfig.
        pictures: draws rows.
        device: where similarities are computed.
    Returns: the run's summary.
    Raises: UserError if features are not finite.
    """
    folder = Path(config.output_dir)
    queries, mapped = query_places(test.labelled, config.queries, seed=config.seed), map_places(test, config)
    features = test.read(mapped).astype(np.float32)
    if not np.isfinite(features).all():
        raise UserError(f"{config.weights} gives features that are not finite: its training diverged")
    asked = np.concatenate([queries, mapped])
    similarities, found = neighbours_of(train, test, asked, config.neighbours, device=device)
    write_neighbours(folder / "neighbours.csv", train, test, queries, similarities, found)
    (folder / "neighbours.png").unlink(missing_ok=True)
    if pictures.tokenizer is not None or pictures.images:
        _draw_neighbours(folder / "neighbours.png", train, test, queries, similarities, found, pictures)
    placed, told = feature_map(features, config.method, perplexity=config.perplexity, seed=config.seed)
    write_map(folder / "feature_map.csv", test, mapped, placed)
    same = train.labelled.targets[found[len(queries) :]] == test.labelled.targets[mapped][:, None]
    return {
        "seed": config.seed, "queries": len(queries), "neighbours": found.shape[1],
        "neighbour_agreement": float(same.mean()), "feature_map": {"rows": len(mapped), **told},
    }  # fmt: skip


def map_places(test: FeatureSet, config: "ExploreConfig") -> np.ndarray:
    """Places of the rows that are mapped, rising, chosen by the seed."""
    return np.sort(_shuffled(len(test), config.seed, 0)[: config.map_rows])


def query_places(labelled: LabelledRows, count: int, *, seed: int) -> np.ndarray:
    """Places of some labelled rows by chance, of as many classes as possible, in the order of their classes."""
    places = _shuffled(len(labelled.rows), seed, 1)
    targets = labelled.targets[places]
    order = np.argsort(targets, kind="stable")
    starts = np.searchsorted(targets[order], targets[order])  # where its class begins in that order
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - starts  # first of its class: 0, second: 1, …
    chosen = places[np.argsort(turn, kind="stable")[:count]]
    return chosen[np.argsort(labelled.targets[chosen], kind="stable")]


def _shuffled(length, seed, part):
    return permute(np.arange(length), length, seed=seed, stream="explored rows", part=(part,))


def keys_of(store: TokenStore, rows: np.ndarray) -> list[str]:
    """Keys of a few rows, in their order."""
    return [store.keys(range(row, row + 1))[0] for row in rows.tolist()]


def write_neighbours(
    path: Path, train: FeatureSet, test: FeatureSet, queries: np.ndarray, similarities: np.ndarray, found: np.ndarray
) -> None:
    """Write the neighbours of each query, a row each, the nearest first.

    Columns: query and neighbour (keys), query_class and neighbour_class, rank (from 1) and similarity (cosine).

    Args:
        path: the CSV.
        train: FeatureSet of the neighbours.
        test: FeatureSet of the queries.
        queries: their places, (q,).
        similarities: (q or more, k).
        found: places of the neighbours, (q or more, k).
    """
    k = found.shape[1]
    found = found[: len(queries)]
    asked, near = (_keys_and_classes(each, places) for each, places in ((test, queries), (train, found.reshape(-1))))
    columns = {
        "query": np.repeat(asked[0], k), "query_class": np.repeat(asked[1], k),
        "rank": np.tile(np.arange(1, k + 1), len(queries)), "neighbour": near[0], "neighbour_class": near[1],
        "similarity": similarities[: len(queries)].reshape(-1),
    }  # fmt: skip
    _write(path, columns)


def write_map(path: Path, test: FeatureSet, mapped: np.ndarray, placed: np.ndarray) -> None:
    """Write where each row lies: columns key, class, x and y.

    Args:
        path: the CSV.
        test: FeatureSet of the rows.
        mapped: their places, (n,).
        placed: (n, 2).
    """
    keys, classes = _keys_and_classes(test, mapped)
    _write(path, {"key": keys, "class": classes, "x": placed[:, 0], "y": placed[:, 1]})


def _keys_and_classes(features, places):
    labelled = features.labelled
    names = np.array(labelled.classes, object)[labelled.targets[places]]
    return np.array(keys_of(labelled.store, labelled.rows[places]), object), names


def _draw_neighbours(path, train, test, queries, similarities, found, pictures):
    """A row a query: itself, then its neighbours."""
    cells, captions = [], []
    first = len(queries)  # what is found of the mapped images comes after it
    for query, near, close in zip(queries, found[:first], similarities[:first], strict=True):
        cells.append(pictures.of(test.labelled, test.labelled.rows[[query]], source=1))
        cells.append(pictures.of(train.labelled, train.labelled.rows[near], source=0))
        classes = train.labelled.classes
        captions.append((classes[test.labelled.targets[query]], "query"))
        captions += [
            (classes[train.labelled.targets[place]], f"similarity {value:.3f}")
            for place, value in zip(near, close, strict=True)
        ]
    captioned_images(path, torch.cat(cells), captions, columns=1 + found.shape[1])


def _write(path, columns):
    with replacing(path) as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False, float_format="%.6g")
