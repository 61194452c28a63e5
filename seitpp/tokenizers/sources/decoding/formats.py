"""The image formats that are read: those that Pillow decodes by itself, from the one file, without starting a program.

Not among them, although Pillow knows them: EPS (runs Ghostscript), IPTC (opens what it holds as any format, so EPS
too), WMF, BUFR, GRIB and HDF5 (handed to whatever handler a program has registered), FITS, SPIDER and others whose
numbers are no colours.
"""

from functools import cache

from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "JPEG2000", "GIF", "TIFF", "BMP", "DIB", "PPM", "QOI"),
    *("MPO", "ICO", "ICNS", "PSD", "DDS", "SGI", "SUN", "XBM", "XPM", "PCX", "TGA"),
)
"""Names of Pillow's. Those without a signature of their own come last: another format's file may look like theirs."""


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow has; an older one lacks AVIF."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def endings() -> frozenset[str]:
    """The endings of readable formats as Pillow lists them, lower case, with their dot."""
    readable = {*readable_formats(), "MPO"}  # which JPEG's reader opens
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in readable)


def ending_of(name: str) -> str:
    """What a file's name ends in, lower case with its dot, such as ".jpg"; "" where it has no dot but the first."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if stem and dot else ""


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image of a readable format. The content decides what is decoded."""
    return ending_of(name) in endings()
