"""Labelled images to measure a classifier on, their classes numbered as the classifier numbers them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.class_order import match_classes
from seitpp.tokenizers.sources.ground_truth import read_ground_truth
from seitpp.tokenizers.sources.selected import SelectedImages
from seitpp.tokenizers.sources.source import open_source


def open_labelled_images(
    spec: str | Path, known: Sequence[str], *, ground_truth: str | Path | None = None,
    class_list: str | Path | None = None, first_class: int | None = None, class_level: int = 0,
) -> SelectedImages:  # fmt: skip
    """Open the labelled images of a source; no image is decoded.

    Args:
        spec: what `open_source` takes: class folders, named or numbered; one flat folder, with `ground_truth`; tars.
        known: class names in the order of the classifier's logits.
        ground_truth: file that holds the classes, see `read_ground_truth`; None: folders or tars do.
        class_list: names of its class numbers, likewise.
        first_class: the number of the first class, where classes are numbers; None: see `match_classes`.
        class_level: of a folder: see `open_image_folder`.
    Returns: an ImageSource whose classes are `known`.
    Raises: UserError if images can't be opened, have no labels, or are of a class that `known` lacks.
    """
    images = open_source(spec, class_level=class_level)
    if ground_truth is not None:
        labels = read_ground_truth(ground_truth, images.keys, known, class_list=class_list, first=first_class)
    else:
        used = np.unique(images.labels[images.labels >= 0])
        match = match_classes(images.classes, known, spec, used=used, first=first_class)
        labels = np.append(match, -1)[images.labels].astype(np.int32)  # the last is that of label -1
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        if ground_truth is not None:
            raise UserError(f"{ground_truth} has no class of any image in {spec}")
        raise UserError(
            f"{spec} holds no labelled image: expected one folder a class, or for seitpp evaluate --ground_truth FILE"
        )
    return SelectedImages(images, rows, (labels[rows], list(known)))
