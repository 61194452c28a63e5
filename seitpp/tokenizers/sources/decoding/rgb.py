"""Any of Pillow's modes to upright 8-bit RGB: depth scaled, not clipped, and transparency on white."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

_DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
_UNPACKED = {"L;2": lambda value: 85 * value, "L;4": lambda value: 17 * value, "1": lambda value: 255 * bool(value),
             "RGB;16B": lambda colour: tuple(value >> 8 for value in colour)}  # fmt: skip
"""Rawmodes whose pixels Pillow brings to 8 bits, but not the colour that counts as transparent."""
_UNCLEAR = (1.1, 16.0)
"""Between these a largest float is neither that of 0 to 1, with some overshoot, nor likely that of 0 to 255."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode the first frame of an opened image as RGB, turned as its camera noted.

    Raises: ValueError where the range of its numbers is unknown; what Pillow raises where it is broken.
    """
    transparent, white = _transparent(image), _white_level(image)
    image.load()
    if transparent is not None:
        image.info["transparency"] = transparent
    image = _upright(image)
    if image.mode in _DEEP:
        return _from_deep(image, white)
    if image.mode == "F":
        return _from_float(np.asarray(image))
    if image.mode in ("P", "1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever is wrong: the pixels are whole, what the camera noted beside them is not
        return image


def _transparent(image) -> Any:
    """The transparent colour of a PNG in the scale of its decoded pixels, None where Pillow's is right or none is."""
    colour, tile = image.info.get("transparency"), getattr(image, "tile", None)
    scale = _UNPACKED.get(tile[0][3]) if tile and isinstance(tile[0][3], str) else None
    return scale(colour) if scale is not None and isinstance(colour, int | tuple) else None


def _white_level(image):
    """The number that is white in a deep grey image: of 16 bits, or the 12 of a TIFF of a camera."""
    bits = image.tag_v2.get(258, (16,)) if hasattr(image, "tag_v2") else (16,)
    return 4095.0 if tuple(np.atleast_1d(bits)) == (12,) else 65535.0


def _from_deep(image, white):
    """16-bit greys; Pillow's own conversion would clip them."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise ValueError(f"its greys run from {low} to {high}, expected 0 to {white:.0f}: save it with 8 or 16 bits")
    grey = (values.astype(np.float32) * np.float32(255.0 / white)).clip(0, 255).astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_float(values):
    """Floats of 0 to 1, to 255 or to 65535, whichever holds them; what is no number becomes 0."""
    values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = float(values.min()), float(values.max())
    white = next((white for white in (1.0, 255.0, 65535.0) if high <= 1.1 * white), None)
    if white is None or low < -0.1 * white or _UNCLEAR[0] < high < _UNCLEAR[1]:
        raise ValueError(f"its floats run from {low:.3g} to {high:.3g}, expected 0 to 1: save it with 8 or 16 bits")
    return Image.fromarray((values * (255.0 / white)).round().clip(0, 255).astype(np.uint8)).convert("RGB")
