"""What an evaluation leaves beside its results: tables of classes, confusions and the worst mistakes, and pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from seitpp.finetune.answers import Answers
from seitpp.finetune.evaluation_pictures import MOST_CLASSES, captioned_images, confusion_picture
from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.metrics import Confusion, confusion, worst_mistakes
from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import read_all
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.store import TokenStore


def write_details(
    folder: Path, answers: Answers, labelled: LabelledRows, *, worst: int,
    images: ImageSource | None = None, tokenizer: Tokenizer | None = None,
) -> None:  # fmt: skip
    """Write the tables and pictures of one classifier.

    Args:
        folder: where they go.
        answers: Answers.
        labelled: the LabelledRows that they are to.
        worst: how many mistakes to show.
        images: what the rows were made of, to draw mistakes; None: they are decoded.
        tokenizer: the classifier's; with neither, no mistakes are drawn.
    """
    names, pairs = labelled.classes, confusion(answers)
    write_per_class(folder / "per_class.csv", answers, pairs, names)
    write_confusion(folder / "confusion.csv", pairs, names)
    if answers.classes <= MOST_CLASSES:
        confusion_picture(folder / "confusion.png", pairs.matrix(), names)
    places = worst_mistakes(answers, worst)
    rows = labelled.rows[places]
    keys = [labelled.store.keys(range(row, row + 1))[0] for row in rows.tolist()]
    write_mistakes(folder / "worst.csv", answers, places, keys, names)
    (folder / "worst.png").unlink(missing_ok=True)
    if len(places) and tokenizer is not None:
        captions = [
            (f"is {names[answers.targets[place]]}",
             f"{answers.confidence[place]:.0%} {names[answers.predicted[place]]}")
            for place in places
        ]  # fmt: skip
        captioned_images(folder / "worst.png", _pixels(rows, keys, labelled, images, tokenizer), captions)


def _pixels(rows, keys, labelled, images, tokenizer):
    """Images of some rows as the tokenizer saw them, or else as it decodes them: (n, 3, h, w) in [0, 1]."""
    if images is not None:
        place = {key: index for index, key in enumerate(images.keys)}
        return read_all(
            images, [place[key] for key in keys], tuple(tokenizer.image_size), resize_of(tokenizer.preprocessing)
        )
    return decoded_rows(labelled.store, rows, tokenizer)


@torch.no_grad()
def decoded_rows(store: TokenStore, rows: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> torch.Tensor:
    """A few rows of a store as pictures, (n, 3, h, w) in [0, 1], eight decoded at a time."""
    ids = store.ids(rows).to(tokenizer.codebook.device)
    return torch.cat([tokenizer.decode(part).float().cpu().clamp(0, 1) for part in ids.split(8)])


def write_per_class(path: str | Path, answers: Answers, confusion: Confusion, names: Sequence[str]) -> None:
    """Write one row a class: its images, how many of them are right, and what it is mistaken for most.

    Columns: class, images, accuracy and top5 (fractions, empty without images), confidence (mean over its images),
    answered (rows of any class that were taken for it), mistaken_for, mistaken_for_images.
    """

    def sums(weights, of=answers.targets):
        return np.bincount(of, weights, minlength=answers.classes)

    images = sums(None)
    wrong = confusion.targets != confusion.predicted
    targets, predicted, counts = (each[wrong] for each in (confusion.targets, confusion.predicted, confusion.counts))
    order = np.lexsort((predicted, -counts, targets))  # by class, the commonest first
    classes, firsts = np.unique(targets[order], return_index=True)
    mistaken, mistakes = np.full(answers.classes, "", object), np.zeros(answers.classes, np.int64)
    mistaken[classes] = np.array(names, object)[predicted[order][firsts]]
    mistakes[classes] = counts[order][firsts]
    with np.errstate(invalid="ignore"):  # 0 / 0 of a class without images is not a number, an empty field
        shares = {
            "accuracy": sums(answers.rank == 0) / images, "top5": sums(answers.rank < 5) / images,
            "confidence": sums(answers.confidence) / images,
        }  # fmt: skip
    columns = {
        "class": list(names), "images": images, **shares, "answered": sums(None, answers.predicted),
        "mistaken_for": mistaken, "mistaken_for_images": mistakes,
    }  # fmt: skip
    _write(path, columns)


def write_confusion(path: str | Path, confusion: Confusion, names: Sequence[str]) -> None:
    """Write how often each class was answered for each: columns class, predicted, images; pairs that occur."""
    names = np.array(names, object)
    columns = {
        "class": names[confusion.targets], "predicted": names[confusion.predicted], "images": confusion.counts
    }  # fmt: skip
    _write(path, columns)


def write_mistakes(
    path: str | Path, answers: Answers, places: np.ndarray, keys: Sequence[str], names: Sequence[str]
) -> None:
    """Write some rows: key, class, predicted, confidence in the answer, probability of the true class.

    Args:
        path: the CSV.
        answers: Answers.
        places: of the rows in them, (n,) int64.
        keys: of these rows, (n,).
        names: class names.
    """
    names = np.array(names, object)
    columns = {
        "key": list(keys), "class": names[answers.targets[places]], "predicted": names[answers.predicted[places]],
        "confidence": answers.confidence[places], "probability": np.exp(-answers.loss[places].astype(np.float64)),
    }  # fmt: skip
    _write(path, columns)


def _write(path, columns):
    with replacing(path) as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False, float_format="%.6g")
