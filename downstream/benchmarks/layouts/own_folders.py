"""Images of one's own: a folder of class folders, or tar files, to learn from, and another one to measure on."""

import numpy as np

from seitpp.downstream.benchmarks.layout import SplitImages
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.selected import SelectedImages
from seitpp.tokenizers.sources.source import ImageSource, open_source


def read(train: str, test: str) -> SplitImages:
    """The labelled images of two places; their classes are those of the first.

    Args:
        train: what `open_source` takes.
        test: likewise.
    Raises: UserError if one can't be opened, has no labels, or the second has a class that the first lacks.
    """
    learned, measured = open_source(train), open_source(test)
    unknown = sorted(set(measured.classes) - set(learned.classes))
    if unknown:
        raise UserError(
            f"{test} has a class folder {unknown[0]!r} that {train} lacks: name it as there, or move it elsewhere"
        )
    place = {name: index for index, name in enumerate(learned.classes)}
    match = np.array([place[name] for name in measured.classes] + [-1], np.int32)
    return SplitImages(
        _labelled(learned, learned.labels, learned.classes, train),
        _labelled(measured, match[measured.labels], learned.classes, test),
    )


def _labelled(images: ImageSource, labels: np.ndarray, classes: list[str], where: str) -> SelectedImages:
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(f"{where} holds no labelled image: expected a folder of images a class")
    return SelectedImages(images, rows, (labels[rows], classes))
