"""An image of any size becomes one of the tokenizer's: by cutting, by a border, or by another aspect."""

from typing import Literal, get_args

from PIL import Image

Resize = Literal["crop", "pad", "squash"]
"""crop: the short side fits, and the centre is kept. pad: the long side fits, and white fills the rest. squash: both
sides fit, whatever the aspect, as in the published preprocessing."""
RESIZES: tuple[Resize, ...] = get_args(Resize)
DESCRIBED: dict[Resize, str] = {
    "crop": "bicubic, short side, centre crop",
    "pad": "bicubic, long side, white border",
    "squash": "bicubic, both sides",
}
"""The `resize` of a preprocessing. Crop's words are those of stores and tokenizers made before there were others."""
LONGEST = 32
"""Images this many times longer than wide are cut to their middle before they are cropped."""


def resize_of(preprocessing: dict) -> Resize:
    """What a tokenizer's or a store's preprocessing does; crop where it does not say."""
    for resize in RESIZES:
        if preprocessing.get("resize") == DESCRIBED[resize]:
            return resize
    return "crop"


def resized(image: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    """Resize an RGB image to (height, width)."""
    height, width = size
    if resize == "squash":
        return _scaled(image, (width, height))
    if resize == "pad":
        scale = min(height / image.height, width / image.width)
        fitting = min(width, round(image.width * scale)), min(height, round(image.height * scale))
        image = _scaled(image, (max(1, fitting[0]), max(1, fitting[1])))
        ground = Image.new("RGB", (width, height), "white")
        ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return ground
    image = _middle(image, size)
    scale = max(height / image.height, width / image.width)
    image = _scaled(image, (max(width, round(image.width * scale)), max(height, round(image.height * scale))))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _scaled(image, size):
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _middle(image, size):
    """Cut an extremely long image to its middle: resized as a whole, 1 x 50,000 pixels would take gigabytes."""
    longest = LONGEST * min(image.size) * max(size) // min(size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
