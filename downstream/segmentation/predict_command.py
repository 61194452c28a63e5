"""Draw the classes of the pixels of images.

    seitpp segment street.jpg room.png --weights runs/upernet --tokenizer runs/tokenizer --output_dir segmented
    seitpp segment photos --weights runs/upernet --tokenizer runs/tokenizer --stride 256 --output_dir segmented

Of each image, NAME.classes.png holds the class of each pixel, counted from 0 as in the store that the model was
trained on, with the colours as a palette, and NAME.overlay.png the colours on the image. Both are of the image's own
size. Images of folders keep their places in them. Memory is that of one image. An image that can't be read is one line
on standard error; the others go on, and the exit code is 1 at the end.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seitpp.downstream.segmentation.palette import IGNORED, coloured, palette_of
from seitpp.downstream.segmentation.segmenter import Segmenter, read_segmenter
from seitpp.downstream.segmentation.stitching import Stitch
from seitpp.finetune.load import load_tokenizer_of, model_folder
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.ownership import begins_with, refuse_foreign_file
from seitpp.runtime.positional import positional_field
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.encoding import full_precision
from seitpp.tokenizers.segmentation.images import read_whole
from seitpp.tokenizers.segmentation.tiles import Tiling, tiling_of_store
from seitpp.tokenizers.segmentation.windowing import Windowing, resize_image
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.listing.folder import list_images
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding

_MARK = ("Software", "seitpp segment")
_ENDINGS = (".classes.png", ".overlay.png")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Draw the classes of the pixels of images: seitpp segment FILE… | FOLDER… --weights RUN --tokenizer RUN."""

    weights: Location
    """run of seitpp.downstream.segmentation.train (of several seeds, the first), one seed's folder, or weights/"""
    tokenizer: Location
    """run or weights of the model's tokenizer"""
    output_dir: Location
    """folder of the pictures; one that is there already is replaced, if it is of this command"""
    files: tuple[str, ...] = positional_field()
    """image files and folders of images, written without a flag"""
    stride: int | None = None
    """pixels from one window to the next; None: as in the store that the model was trained on"""
    flip: bool = False
    """whether the answers to an image and to its mirror image are averaged; both are tokenised"""
    opacity: float = 0.5
    """of the colours in overlays"""
    batch_size: int = 8
    """windows per forward pass"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of the model's pass, as in a training; auto: bf16 on a GPU"""

    def __post_init__(self):
        require(self, "files", self.files, "must name image files or folders")
        require(self, "stride", self.stride is None or self.stride >= 1, "must be at least 1")
        require(self, "opacity", 0 <= self.opacity <= 1, "must lie in [0, 1]")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")


def segment(config: SegmentConfig) -> None:
    """Write two pictures an image; exits with 1 if one image could not be read."""
    accelerator = make_accelerator(config.mixed_precision)
    if not accelerator.is_main_process:
        return
    segmenter = read_segmenter(model_folder(config.weights), accelerator.device)
    tokenizer = load_tokenizer_of(segmenter.tokenizer, config.tokenizer, accelerator.device)
    windowing = windowing_of(segmenter, config.stride)
    tiling = _tiling(tokenizer, segmenter)
    jobs = _jobs(config.files, Path(config.output_dir))
    for places in jobs.values():
        for place in places:
            refuse_foreign_file(place, _is_ours, "a picture of seitpp segment", "choose another --output_dir")
    failed = 0
    with quiet_decoding(), Progress(len(jobs), "segment") as progress:
        for file, places in jobs.items():
            try:
                pixels = read_whole(file)
            except (BrokenImage, OSError) as error:
                print(f"error: {file}: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
            labels = labels_of(
                pixels, segmenter, tiling, windowing, flip=config.flip, batch_size=config.batch_size,
                accelerator=accelerator,
            )  # fmt: skip
            _write(places, pixels, labels, len(segmenter.mask_classes), config.opacity)
            progress.update(progress.done + 1)
    print(f"{config.output_dir}: {len(jobs) - failed} of {len(jobs)} images")
    if failed:
        sys.exit(1)  # each has had its line


def windowing_of(segmenter: Segmenter, stride: int | None) -> Windowing:
    """How new images become windows: as those that a segmenter learned from.

    Raises: UserError if the stride is larger than a window.
    """
    told = segmenter.windows
    windowing = Windowing(size=tuple(told["size"]), stride=tuple(told["stride"]), short_side=told["short_side"])
    return windowing if stride is None else replace(windowing, stride=(stride, stride))


@torch.no_grad()
def labels_of(
    pixels: np.ndarray, segmenter: Segmenter, tiling: Tiling, windowing: Windowing, *, flip: bool, batch_size: int,
    accelerator: Any,
) -> np.ndarray:  # fmt: skip
    """The class of each pixel of an image.

    Args:
        pixels: (height, width, 3) uint8.
        segmenter: a Segmenter in evaluation mode.
        tiling: how its tokenizer encodes a window.
        windowing: how the image becomes windows.
        flip: average with the answer to the mirror image.
        batch_size: windows at a time.
        accelerator: accelerate.Accelerator.
    Returns: (height, width) uint8.
    """
    device = accelerator.device
    own: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
    resized = windowing.resized(*own)
    stitch, whole = Stitch(len(segmenter.mask_classes), resized, windowing.size, device), resize_image(pixels, resized)
    windows = [(place, windowing.fill(whole, place)) for place in windowing.places(*resized)]
    for start in range(0, len(windows), batch_size):
        some = windows[start : start + batch_size]
        shown = to_float(torch.from_numpy(np.stack([part for _, part in some])).movedim(-1, 1).to(device))
        logits = _logits(shown, segmenter, tiling, accelerator)
        if flip:
            logits = (logits + _logits(shown.flip(-1), segmenter, tiling, accelerator).flip(-1)) / 2
        for (place, _), each in zip(some, logits, strict=True):
            stitch.add(each, *place)
    return stitch.labels(own, smooth=True)


def _logits(shown, segmenter, tiling, accelerator):
    with full_precision(accelerator.device):
        ids = tiling.encode(shown)
    with accelerator.autocast():
        return segmenter(ids).float()


def _tiling(tokenizer: Any, segmenter: Segmenter) -> Tiling:
    """How windows are encoded: as in the store that the segmenter learned from.

    Raises: UserError if the tokenizer makes another grid of a window.
    """
    tiling = tiling_of_store(tokenizer, {"windows": segmenter.windows})
    if tiling.grid != segmenter.encoder.view:
        raise UserError(
            f"the tokenizer makes {tiling.grid} tokens of a window, the model sees {segmenter.encoder.view}: give the "
            f"tokenizer of the store that it was trained on"
        )
    return tiling


def _jobs(words: Sequence[str], folder: Path) -> dict[Path, tuple[Path, Path]]:
    """{image: where its two pictures go}.

    Raises: UserError if there is no image, or two would be written to one place.
    """
    jobs: dict[Path, tuple[Path, Path]] = {}
    of_place: dict[Path, Path] = {}
    for file, place in _images_at(words):
        first, second = (folder / place.with_name(place.stem + ending) for ending in _ENDINGS)
        if of_place.setdefault(first, file) != file:
            raise UserError(f"{file} and {of_place[first]} would both be {first}: rename one, or draw them apart")
        jobs[file] = first, second
    if not jobs:
        raise UserError(f"there is no image in {', '.join(words)}")
    return jobs


def _images_at(words: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """(image, its path in what was named) of all images."""
    for word in words:
        if Path(word).is_dir():
            yield from ((Path(word, key), Path(key)) for key in list_images(word).keys)
        elif Path(word).exists():
            yield Path(word), Path(Path(word).name)
        else:
            raise UserError(f"there is no file or folder {word}")


def _write(places: tuple[Path, Path], pixels: np.ndarray, labels: np.ndarray, classes: int, opacity: float) -> None:
    colours = np.full((256, 3), IGNORED, np.uint8)
    colours[:classes] = palette_of(classes)
    index = Image.fromarray(labels)
    index.putpalette(colours.tobytes())
    mixed = (1 - opacity) * pixels.astype(np.float32) + opacity * coloured(labels, classes)
    overlay = Image.fromarray(mixed.round().astype(np.uint8))
    mark = PngInfo()
    mark.add_text(*_MARK)
    for place, picture in zip(places, (index, overlay), strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary:
            picture.save(temporary, format="PNG", pnginfo=mark)


def _is_ours(path: Path) -> bool:
    return begins_with(path, b"tEXt" + "\0".join(_MARK).encode(), within=2048)  # behind the palette


def cli() -> None:
    """Run the stage from the command line."""
    run_command(segment, SegmentConfig, recipes="segment")


if __name__ == "__main__":
    cli()
