"""Images of a data set that timm opens: Hugging Face (`hfds/NAME`) and torchvision (`torch/NAME`)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name, label_by_number
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import require_utf8
from seitpp.tokenizers.sources.pixels import image_faults, open_image, read_image, to_pixels


@dataclass(frozen=True)
class TimmImages:
    """Images of a data set with an index.

    Attributes:
        name: what was opened, for messages.
        keys: split and number of each, or its file's path where the data set is a folder of files.
        labels: class index of each, -1 where unknown, (n,) int32.
        classes: class names.
        dataset: the data set.
        left_out: nothing; a data set says itself what is in it.
    """

    name: str
    keys: list
    labels: np.ndarray
    classes: list
    dataset: Any
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`; each kind of data set has its own way."""
        raise TypeError(f"{type(self).__name__} reads no images")

    def where(self, index: int) -> str:
        """Data set, split and number of one image, for messages."""
        return f"{self.name}, {self.keys[index]}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Nobody says: (rows,) zeros."""
        return np.zeros(len(rows), np.int64)


class HuggingFaceImages(TimmImages):
    """Rows with a column of encoded images."""

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        with image_faults():
            image = self.dataset[int(index)]["image"]
            return read_image(image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"]), size, resize)


class TorchvisionImages(TimmImages):
    """Pairs of an image that Pillow has opened and a target."""

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        with image_faults(), self.dataset[int(index)][0] as image:
            return to_pixels(image, size, resize)

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some files, (rows,) int64, where the data set is a folder of files; else nobody says."""
        if not hasattr(self.dataset, "samples"):
            return super().sizes(rows)
        return np.array([Path(self.dataset.samples[row][0]).stat().st_size for row in rows], np.int64)


def open_timm(
    spec: str,
    classes: Sequence[str] | None = None,
    *,
    split: str = "train",
    root: str | None = None,
    image_column: str = "image",
    label_column: str | None = None,
) -> TimmImages:
    """Open a data set by `timm.data.create_dataset`.

    Args:
        spec: `hfds/NAME` (a Hub id or a folder) or `torch/NAME` (cifar10, mnist, imagenet, image_folder, ...).
        classes: class names of another store whose indices are to be kept; None: the data set's.
        split: its part.
        root: hfds/: folder of the cache; torch/: folder where the data set lies.
        image_column: hfds/: column of images.
        label_column: hfds/: column of classes; None: `label`, where there is one.
    Returns: an ImageSource.
    Raises: UserError where it can't be opened.
    """
    from timm.data.dataset_factory import create_dataset

    kind = spec.split("/")[0]
    if kind == "torch" and root is None:
        raise UserError(f"{spec} needs --root, the folder where the data set lies")
    named: Any = {"input_key": image_column} if kind == "hfds" else {}
    try:
        dataset: Any = create_dataset(spec, root=root, split=split, **named)
    except ModuleNotFoundError as error:
        raise UserError(f"{spec} needs the package {error.name}: pip install 'seitpp[huggingface]'") from error
    except Exception as error:  # whatever each of a dozen libraries raises
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        flags = "--images, --split, --image_column" if kind == "hfds" else "--images, --split, --root"
        raise UserError(f"{spec}, split {split!r}, can't be opened ({reason}): check {flags}") from error
    if kind == "torch":
        return _torchvision(spec, dataset, split, classes)
    return _huggingface(spec, dataset.reader.dataset, split, classes, image_column, label_column)


def from_hugging_face(dataset: Any, label_column: str | None = None) -> TimmImages:
    """Images of a `datasets.Dataset` that a program has opened.

    Args:
        dataset: with one column of images.
        label_column: column of classes; None: `label`, where there is one.
    Raises: UserError if there is no such column, or there are several columns of images.
    """
    from datasets import Image as ImageColumn

    columns = [name for name, feature in dataset.features.items() if isinstance(feature, ImageColumn)]
    if len(columns) != 1:
        raise UserError(
            f"the data set has {len(columns)} columns of images, expected one; it has {dataset.column_names}"
        )
    encoded = dataset.cast_column(columns[0], ImageColumn(decode=False))
    split = str(dataset.split or "train")
    return _huggingface("the data set", encoded, split, None, columns[0], label_column)


def _torchvision(spec, dataset, split, classes):
    if hasattr(dataset, "loader"):
        dataset.loader = open_image  # torchvision's own makes RGB of anything, by other rules than ours
    if hasattr(dataset, "samples"):
        keys = [Path(path).relative_to(dataset.root).as_posix() for path, _ in dataset.samples]
        require_utf8(keys, dataset.root)
    else:
        keys = _numbered_keys(split, dataset)
    targets = dataset.targets if hasattr(dataset, "targets") else [category for category, _ in dataset.index]
    numbers = np.asarray(targets).reshape(len(dataset), -1)[:, 0]  # QMNIST's further columns say who wrote a digit
    names = dataset.classes if hasattr(dataset, "classes") else dataset.all_categories
    names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
    return TorchvisionImages(spec, keys, *label_by_number(numbers, names, classes, spec), dataset)


def _huggingface(spec, dataset, split, classes, image_column, label_column):
    dataset = dataset.rename_column(image_column, "image") if image_column != "image" else dataset
    if label_column is None and "label" in dataset.column_names:
        label_column = "label"
    if label_column is None:
        labels = np.full(len(dataset), -1, np.int32), list(classes or [])
    elif label_column not in dataset.column_names:
        columns = ", ".join(dataset.column_names)
        raise UserError(f"{spec} has no column {label_column!r}: --label_column must be one of {columns}")
    else:
        values = dataset.select_columns([label_column])[:][label_column]
        if any(isinstance(value, str) for value in values):
            labels = label_by_name(values, classes, spec)
        else:
            numbers = np.array([-1 if value is None else value for value in values])
            names = getattr(dataset.features[label_column], "names", None)
            labels = label_by_number(numbers, names, classes, spec)
    return HuggingFaceImages(spec, _numbered_keys(split, dataset), *labels, dataset)


def _numbered_keys(split, dataset):
    if not len(dataset):
        raise UserError(f"split {split!r} holds no images: check --split")
    return [f"{split}/{row:07d}" for row in range(len(dataset))]
