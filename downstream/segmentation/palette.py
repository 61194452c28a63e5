"""Colours of classes: ADE20K's own 150 where there are so many, else those of Pascal VOC's rule, for any number."""

import numpy as np

_ADE20K = (
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)
"""The colours of the 150 classes of the ADE20K scene parsing benchmark, in its order, six hexadecimal digits each."""
IGNORED = (0, 0, 0)
"""The colour of pixels that nobody is measured on."""


def palette_of(classes: int) -> np.ndarray:
    """The colour of each class, (classes, 3) uint8.

    Args:
        classes: how many; 150 are taken to be ADE20K's.
    """
    if classes == 150:
        return np.frombuffer(bytes.fromhex(_ADE20K), np.uint8).reshape(150, 3)
    return np.array([voc_colour(number) for number in range(classes)], np.uint8)


def voc_colour(number: int) -> tuple[int, int, int]:
    """A class's colour by Pascal VOC's rule: bits of its number, the lowest first, are the highest of r, g and b."""
    colour = [0, 0, 0]
    for shift in range(8):
        for channel in range(3):
            colour[channel] |= ((number >> (3 * shift + channel)) & 1) << (7 - shift)
    return colour[0], colour[1], colour[2]


def coloured(labels: np.ndarray, classes: int) -> np.ndarray:
    """A label map as a picture: (h, w) uint8 to (h, w, 3) uint8; values that are no class are IGNORED."""
    table = np.full((256, 3), IGNORED, np.uint8)
    table[:classes] = palette_of(classes)
    return table[labels]
