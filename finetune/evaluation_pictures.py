"""Pictures that an evaluation leaves: the confusion matrix, and images with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

from seitpp.runtime.files import replacing
from seitpp.runtime.picture_cells import Cells

MOST_CLASSES = 100
"""of a confusion matrix as a picture"""
_FONT, _GAP, _COLUMNS = 12, 6, 8
_LEAST_SIDE = 128
"""pixels of a captioned image: narrower captions say nothing"""
_COUNTED = 20
"""classes up to which cells hold their numbers"""
_LONGEST_NAME = 18
_WHITE, _BLUE = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])


def confusion_picture(path: str | Path, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Draw a confusion matrix: a row a true class, a column an answer, darker the larger the share of its row.

    Args:
        path: the PNG.
        matrix: (classes, classes) counts.
        names: class names.
    """
    font = ImageFont.load_default(_FONT)
    side = 32 if len(names) <= _COUNTED else _FONT + 2
    labels = [_shortened(name, font, _LONGEST_NAME * _FONT // 2) for name in names]
    margin = round(max(font.getlength(label) for label in labels)) + 2 * _GAP
    span = margin + side * len(names)
    picture = Image.new("RGB", (span + _GAP, span + _GAP), "white")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    colours = (_WHITE + shares[..., None] * (_BLUE - _WHITE)).round().astype(np.uint8)
    cells = Image.fromarray(colours).resize((side * len(names),) * 2, Image.Resampling.NEAREST)
    picture.paste(cells, (margin, margin))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((margin - 1, margin - 1, span, span), outline="grey")
    for place, label in enumerate(labels):
        middle = margin + side * place + side // 2
        draw.text((margin - _GAP, middle), label, fill="black", font=font, anchor="rm")
        picture.paste(_upwards(label, font, margin - _GAP), (middle - _FONT // 2 - 1, 0))
    if len(names) <= _COUNTED:
        for row, column in np.argwhere(matrix > 0):
            centre = (margin + side * column + side // 2, margin + side * row + side // 2)
            fill = "white" if shares[row, column] > 0.5 else "black"
            draw.text(centre, str(matrix[row, column]), fill=fill, font=font, anchor="mm")
    _save(picture, path)


def captioned_images(
    path: str | Path, images: torch.Tensor, captions: Sequence[Sequence[str]], *, columns: int = _COLUMNS
) -> None:
    """Draw images in rows, each above its caption; the PNG says where they lie in it.

    Args:
        path: the PNG.
        images: (n, 3, h, w) in [0, 1], n at least 1.
        captions: lines of each, the same number.
        columns: images in a row.
    """
    font = ImageFont.load_default(_FONT)
    height, width = images.shape[-2:]
    scale = max(1.0, _LEAST_SIDE / width)
    size = (round(width * scale), round(height * scale))
    cell = (size[0] + _GAP, size[1] + len(captions[0]) * (_FONT + 3) + 2 * _GAP)
    columns = min(columns, len(images))
    cells = Cells(count=len(images), columns=columns, first=(_GAP, _GAP), size=size, step=cell)
    picture = Image.new("RGB", (columns * cell[0] + _GAP, -(-len(images) // columns) * cell[1] + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    pixels = (rearrange(images.float().clamp(0, 1), "n c h w -> n h w c").numpy() * 255.0).round().astype(np.uint8)
    for place, (image, lines) in enumerate(zip(pixels, captions, strict=True)):
        left, top, _, _ = cells.box(place)
        picture.paste(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), (left, top))
        for number, line in enumerate(lines):
            baseline = top + size[1] + 3 + number * (_FONT + 3)
            draw.text((left, baseline), _shortened(line, font, size[0]), fill="black", font=font)
    _save(picture, path, pnginfo=cells.png_text())


def _shortened(text, font, width):
    """As much of a text as fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _upwards(text, font, length):
    """A text that runs from the bottom up, at the lower end of a strip."""
    strip = Image.new("RGB", (length, _FONT + 3), "white")
    ImageDraw.Draw(strip).text((0, (_FONT + 3) // 2), text, fill="black", font=font, anchor="lm")
    return strip.transpose(Image.Transpose.ROTATE_90)


def _save(picture, path, **how):
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", **how)
