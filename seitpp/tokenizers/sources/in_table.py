"""Images whose classes stand in a table that somebody made, wherever the images lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.label_table import LabelTable
from seitpp.tokenizers.sources.of_another import ImagesOfAnother
from seitpp.tokenizers.sources.source import ImageSource


@dataclass(frozen=True)
class ImagesInTable(ImagesOfAnother):
    """An ImageSource with labels of a table.

    Attributes:
        own_labels: class index of each image, -1 where it is unknown or has several, (n,) int32.
        own_classes: class names.
        label_lists: the classes of each, None where nobody said; None for all: images have one label.
        notices: what the table and the images do not have in common, lines.
    """

    own_labels: np.ndarray = field(kw_only=True)
    own_classes: list[str] = field(kw_only=True)
    label_lists: list[np.ndarray | None] | None = field(kw_only=True)
    notices: list[str] = field(kw_only=True)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image as the other source reads them."""
        return self.images.read(index, size, resize)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each, (n,) int32."""
        return self.own_labels

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self.own_classes


def label_by_table(
    images: ImageSource, table: LabelTable, *, where: object, classes: Sequence[str] | None = None,
    like: object = None, several: bool = False,
) -> ImagesInTable:  # fmt: skip
    """Give images the labels of a table.

    Args:
        images: an ImageSource.
        table: its keys are those of the images.
        where: what the images are, for messages.
        classes: class names whose numbers are kept; None: those of the table.
        like: whose these classes are, for a message.
        several: whether images may have several labels.
    Raises: UserError if the table names none of the images, or a class that `classes` lacks.
    """
    known = table.match(images.keys, classes, like)
    table.require_some(known.found, where, images.keys[0])
    notices = [each for each in (table.strangers(known.found, str(where)),) if each]
    if known.unlabelled:
        first = next(key for key, each in zip(images.keys, known.lists, strict=True) if each is None)
        count = f"{known.unlabelled:,} of {len(images):,} images"
        notices.append(f"{where}: {count} have no label in {table.path}, the first is {first}")
    return ImagesInTable(
        images, own_labels=known.labels, own_classes=list(table.classes if classes is None else classes),
        label_lists=known.lists if several else None, notices=notices,
    )  # fmt: skip
