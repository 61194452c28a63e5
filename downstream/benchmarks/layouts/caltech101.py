"""Caltech-101: a folder a class in 101_ObjectCategories/, and no official split.

The field learns from 30 images a class and measures on all others, by the mean over classes, with the background as
a class (Kornblith et al., arXiv 1805.08974): 3,060 and 6,084 images. Here the 30 are drawn by seed 0, always the same.
"""

from pathlib import Path

import numpy as np

from seitpp.downstream.benchmarks.layout import Layout, SplitImages
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.selected import SelectedImages
from seitpp.tokens.order.permutation import permute

A_CLASS, SEED = 30, 0


def read(root: Path) -> SplitImages:
    """The images of a folder with 101_ObjectCategories/."""
    images = open_image_folder(root / "101_ObjectCategories")
    train, test = [], []
    for label in range(len(images.classes)):
        rows = np.flatnonzero(images.labels == label)
        rows = rows[permute(np.arange(len(rows)), len(rows), seed=SEED, stream="benchmark split", part=(label,))]
        train.append(rows[:A_CLASS])
        test.append(rows[A_CLASS:])
    return SplitImages(*(SelectedImages(images, np.sort(np.concatenate(rows))) for rows in (train, test)))


LAYOUT = Layout(parts={"101_ObjectCategories": "101_ObjectCategories.tar.gz"}, read=read)
