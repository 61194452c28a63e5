"""Print the most likely classes of images.

    seitpp predict cat.jpg dog.png --classifier runs/mine/bundle
    seitpp predict cat.jpg dog.png --classifier runs/finetune --tokenizer runs/tokenizer
    seitpp predict photos --classifier runs/finetune --tokenizer runs/tokenizer --format jsonl
    find . -name '*.jpg' | seitpp predict - --classifier runs/finetune --tokenizer runs/tokenizer

An image that can't be read is one line on standard error; the others go on, and the exit code is 1 at the end. Images
are read a few at a time and printed as they are done: memory is that of some batches, and of the paths of a folder.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

import torch

from seitpp.finetune.bundle import Bundle
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.load import load, load_tokenizer_of
from seitpp.finetune.predict import most_likely
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.positional import positional_field
from seitpp.tokenizers.encoding import encoded_batches
from seitpp.tokenizers.sources.given import GivenImages
from seitpp.tokenizers.sources.listing.folder import list_images
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.tokenize import spare_cores
from seitpp.tokenizers.tokenizer import Tokenizer

STDIN = "-"
_ANY_WIDTH = 10_000
"""columns of what is no terminal: long names are kept whole"""
_BATCHES = 8
"""that are read, classified and printed at a time: enough for threads to decode ahead"""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Print the most likely classes of images: seitpp predict FILE… | FOLDER… | - --classifier BUNDLE."""

    classifier: Location
    """bundle of seitpp export-model, or a folder that has one as bundle/; run of seitpp.finetune.train (of several
    seeds, the first), one seed's folder, or weights/"""
    tokenizer: Location | None = None
    """run or weights of the classifier's tokenizer; None: that of the bundle"""
    files: tuple[str, ...] = positional_field()
    """image files and folders of images, written without a flag; -: paths from standard input, one a line"""
    top: int = 5
    """how many classes of each image"""
    format: Literal["table", "jsonl"] = "table"
    """table: for people; jsonl: a JSON object a line, {"file", "predictions": [{"class", "probability"}, …]}"""
    batch_size: int = 64
    """images per forward pass"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of the classifier's pass, as in a training; auto: bf16 on a GPU"""

    def __post_init__(self):
        require(self, "files", self.files, "must name files, folders or - (paths from standard input)")
        require(self, "top", self.top >= 1, "must be at least 1")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")


@dataclass(frozen=True)
class Prediction:
    """What is known of one image.

    Attributes:
        file: its path.
        classes: (class name, probability), the most likely first; none if the image can't be read.
        problem: why it can't; else "".
    """

    file: str
    classes: Sequence[tuple[str, float]] = ()
    problem: str = ""


def main(config: PredictConfig) -> None:
    """Print a line an image; exits with 1 if one could not be read."""
    accelerator = make_accelerator(config.mixed_precision)
    if not accelerator.is_main_process:
        return
    classifier, tokenizer = _models(config, accelerator.device)
    show = _JsonLines() if config.format == "jsonl" else _Table()
    done = failed = 0
    paths = images_of(config.files, sys.stdin)
    with quiet_decoding(), ThreadPoolExecutor(spare_cores()) as threads:
        while some := list(islice(paths, _BATCHES * config.batch_size)):
            for predictions in classified(some, classifier, tokenizer, threads, accelerator.autocast, config):
                broken = [each for each in predictions if each.problem]
                for each in broken:
                    print(f"error: {_printable(each.file)}: {each.problem}", file=sys.stderr, flush=True)
                show([each for each in predictions if not each.problem])
                done, failed = done + len(predictions), failed + len(broken)
    if not done:
        raise UserError("standard input names no image: expected a path a line")
    if failed:
        sys.exit(1)  # each has had its line


def _models(config: PredictConfig, device: torch.device) -> tuple[Classifier, Tokenizer]:
    """The classifier and its tokenizer, of a bundle or of runs."""
    model: Any = load(config.classifier, device)
    classifier, own = (model.model, model.tokenizer) if isinstance(model, Bundle) else (model, None)
    if not isinstance(classifier, Classifier):
        raise UserError(
            f"{config.classifier} is a {type(classifier).__name__}, no classifier: give a run of seitpp finetune"
        )
    tokenizer = config.tokenizer or own
    if tokenizer is None:
        raise UserError(
            f"{config.classifier} has no tokenizer beside it: give --tokenizer RUN, or make a bundle of both with "
            "seitpp export-model --kind bundle"
        )
    return classifier, load_tokenizer_of(classifier.tokenizer, tokenizer, device)


def images_of(words: Iterable[str], stdin: TextIO) -> Iterator[Prediction]:
    """The images that words name, not yet classified: files, those in folders, and by - those of standard input.

    Args:
        words: as they are typed.
        stdin: a text stream with a buffer, read as a stream, so that it may be of any length.
    """
    for word in words:
        if word == STDIN:
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in stdin.buffer)
            yield from (each for line in lines if line for each in _images_at(line))
        else:
            yield from _images_at(word)


def _images_at(path: str) -> Iterator[Prediction]:
    """The image at a path, or those below it; with its problem if there is none."""
    try:
        keys = list_images(path, advice="name images, or a folder of some").keys if Path(path).is_dir() else None
    except UserError as error:
        yield Prediction(path, problem=str(error).removeprefix(f"{Path(path)} "))  # the line names it already
        return
    if keys is not None:
        yield from (Prediction(str(Path(path, key))) for key in keys)
    else:
        yield Prediction(path, problem="" if Path(path).exists() else "there is no such file or folder")


def classified(
    images: Sequence[Prediction], classifier: Classifier, tokenizer: Tokenizer, threads: ThreadPoolExecutor,
    autocast: Callable[[], AbstractContextManager], config: PredictConfig,
) -> Iterator[list[Prediction]]:  # fmt: skip
    """Classify some images, a batch at a time, in their order.

    Args:
        images: Predictions to fill; those with a problem stay as they are.
        classifier: a Classifier in evaluation mode.
        tokenizer: its Tokenizer, on the same device.
        threads: a ThreadPoolExecutor that decodes.
        autocast: makes the context that the classifier runs in; the tokenizer runs without.
        config: a PredictConfig.
    Yields: lists of Prediction, all of `images` once.
    """
    there = [place for place, each in enumerate(images) if not each.problem]
    source = GivenImages([images[place].file for place in there], keys=[str(place) for place in there])
    shown = 0
    device = tokenizer.codebook.device
    for ids, rows, broken in encoded_batches(
        source, range(len(source)), tokenizer, device, threads, config.batch_size
    ):  # fmt: skip
        found = {there[row]: Prediction(images[there[row]].file, problem=reason) for row, reason in broken}
        if ids is not None:
            with autocast():
                best = most_likely(classifier, ids, config.top)
            found |= {
                there[row]: Prediction(images[there[row]].file, list(zip(names, values, strict=True)))
                for row, names, values in zip(rows, best.names, best.probabilities.tolist(), strict=True)
            }
        last = max(found) + 1
        yield [found.get(place, images[place]) for place in range(shown, last)]
        shown = last
    yield list(images[shown:])


class _JsonLines:
    """A JSON object a line, each flushed: a program that reads them gets them as they are made."""

    def __call__(self, predictions: Sequence[Prediction]) -> None:
        for each in predictions:
            classes = [{"class": name, "probability": round(value, 6)} for name, value in each.classes]
            print(json.dumps({"file": each.file, "predictions": classes}), flush=True)


class _Table:
    """Rows of a table, printed as they come: columns get wider where they must, and never narrower."""

    def __init__(self):
        from rich.console import Console

        self.console = Console(width=None if sys.stdout.isatty() else _ANY_WIDTH)
        self.widths: list[int] = []

    def __call__(self, predictions: Sequence[Prediction]) -> None:
        from rich.table import Table
        from rich.text import Text

        if not predictions:
            return
        rows = [
            [_printable(each.file), *(f"{_printable(name)} {value:.1%}" for name, value in each.classes)]
            for each in predictions
        ]
        table = Table(box=None, pad_edge=False, show_header=not self.widths)
        self.widths = [
            max(former, *map(len, column))
            for former, *column in zip(self.widths or [0] * len(rows[0]), *rows, strict=True)
        ]
        for place, width in enumerate(self.widths):
            table.add_column(f"top {place}" if place else "image", min_width=width, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table)


def _printable(text: str) -> str:
    """A text in one line, that every terminal takes: a name may hold line breaks, or bytes that are no UTF-8."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, PredictConfig, recipes="predict")


if __name__ == "__main__":
    cli()
