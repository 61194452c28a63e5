"""The classes of images that lie in one folder, from a file beside them, as ImageNet's validation set comes.

    ILSVRC2012_validation_ground_truth.txt    a line an image, in the order of sorted file names: a number from 1, or
                                              a class name
    labels.csv                                columns file,label; images that it does not name are left out

ImageNet's own numbers are not in the order of the sorted class names that classifiers have. Which name has which
number stands in the development kit's meta.mat, which is read where it lies beside the numbers, or in a list of names.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.class_order import match_classes

_META = "meta.mat"


def read_ground_truth(
    file: str | Path, keys: Sequence[str], known: Sequence[str], *, class_list: str | Path | None = None,
    first: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Labels of images from a file.

    Args:
        file: .csv with columns file and label, else a text file with one line an image.
        keys: file names of the images, relative to their folder.
        known: class names in the order of the classifier's logits.
        class_list: what the numbers mean: a text file with a class name a line in their order, or ImageNet's meta.mat;
            None: a meta.mat beside `file`, else they count the classifier's classes.
        first: number of the first class; None: 1 in a text file, what the numbers show in a .csv.
    Returns: (keys,) int32 places in `known`, -1 for an image that a .csv does not name.
    Raises: UserError if the file can't be read, does not fit the images, or has a class that the classifier lacks.
    """
    file = Path(file)
    is_table = file.suffix.lower() == ".csv"
    answers = _by_name(file, keys) if is_table else _by_line(file, keys)
    numbered = all(answer is None or (answer.isascii() and answer.isdigit()) for answer in answers)
    if numbered and first is None and not is_table:
        first = 1
    if class_list is None and (file.parent / _META).is_file():
        class_list = file.parent / _META
    if numbered and class_list is not None:
        found, first = read_class_list(class_list), 1 if first is None else first
        places = _places(answers, first, len(found), file)
        match = match_classes(found, known, class_list, used=np.unique(places[places >= 0]))
    else:
        found = sorted({answer for answer in answers if answer is not None})
        place_of = {name: place for place, name in enumerate(found)} | {None: -1}
        places = np.array([place_of[answer] for answer in answers], np.int64)
        match = match_classes(found, known, file, first=first if numbered else None)
    return np.append(match, -1)[places].astype(np.int32)


def read_class_list(file: str | Path) -> list[str]:
    """Class names in the order of their numbers.

    Args:
        file: a text file with one name a line, or meta.mat of ImageNet's development kit.
    Raises: UserError if it is neither.
    """
    file = Path(file)
    if file.suffix.lower() == ".mat":
        return _meta_names(file)
    return [line.strip() for line in _lines(file)]


def _by_line(file, keys):
    """The answer of each key, from the lines for sorted keys."""
    lines = [line.strip() for line in _lines(file)]
    if len(lines) != len(keys):
        raise UserError(f"{file} has {len(lines)} lines, there are {len(keys)} images: it belongs to other images")
    if "" in lines:
        raise UserError(f"{file}: line {lines.index('') + 1} is empty, expected a class number or name")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    answer_of = dict(zip(order, lines, strict=True))
    return [answer_of[index] for index in range(len(keys))]


def _by_name(file, keys):
    """The answer of each key, None where the table has none."""
    _lines(file)  # its errors are clearer than those of pandas
    try:
        table = pd.read_csv(file, dtype="string", keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{file} is no CSV with the columns file,label ({error})") from error
    if not {"file", "label"} <= set(table.columns):
        raise UserError(f"{file} must have the columns file and label; it has {', '.join(map(str, table.columns))}")
    answer_of = dict(zip(table["file"], table["label"].str.strip(), strict=True))
    unknown = set(answer_of) - set(keys)
    if unknown:
        raise UserError(f"{file} names {min(unknown)}, which is not among the images (such as {keys[0]})")
    return [answer_of.get(key) or None for key in keys]


def _places(answers, first, count, file):
    """Places of class numbers in a list of `count` classes, -1 of None."""
    places = np.array([-1 if answer is None else int(answer) - first for answer in answers], np.int64)
    known = np.array([answer is not None for answer in answers])
    wrong = np.flatnonzero(known & ((places < 0) | (places >= count)))
    if len(wrong):
        number = places[wrong[0]] + first
        raise UserError(f"{file} has a class number {number}, its list of classes has {first} to {first - 1 + count}")
    return places


def _lines(file):
    expected = "expected a class a line, or CSV with the columns file,label"
    try:
        return file.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there: {expected}") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{file} is no text file: {expected}") from error


def _meta_names(file):
    """WordNet ids of the classes of ILSVRC2012, in the order of ILSVRC2012_ID, which counts from 1."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        leaves = [each for each in synsets if int(each["num_children"]) == 0]
        return [str(each["WNID"]) for each in sorted(leaves, key=lambda each: int(each["ILSVRC2012_ID"]))]
    except Exception as error:  # whatever scipy's reader and a file of other content raise
        raise UserError(f"{file} is no meta.mat of ImageNet's development kit ({error})") from error
