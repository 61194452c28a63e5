"""ImageNet-C as it is given out: CORRUPTION/SEVERITY/WNID/*.JPEG, severities 1 to 5.

Its five archives (noise, blur, weather, digital, extra) may be unpacked into one folder, or each into a folder of its
own name.

Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261).
"""

from dataclasses import dataclass
from pathlib import Path

from seitpp.downstream.imagenet.class_folders import Layout
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.listing.names import is_hidden

ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("gaussian_blur", "saturate", "spatter", "speckle_noise"),
}
CORRUPTIONS = tuple(name for archive, names in ARCHIVES.items() if archive != "extra" for name in names)
"""The 15 that the mean corruption error is of, in the order of the paper's tables."""
EXTRA = ARCHIVES["extra"]
"""Four more, meant for validation."""
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class CorruptedFolder:
    """The images of one corruption at one severity.

    Attributes:
        corruption: its name.
        severity: 1 to 5.
        folder: of its class folders.
    """

    corruption: str
    severity: int
    folder: Path


def find_corrupted(folder: str | Path, layout: Layout) -> list[CorruptedFolder]:
    """The corruptions of a folder, all severities of each; only names of folders are looked at.

    Args:
        folder: ImageNet-C.
        layout: of each severity's class folders.
    Raises: UserError if there is none, a folder is no corruption, or one lacks a severity or a class.
    """
    folder = Path(folder)
    found = dict(_corruptions(folder))
    if not found:
        raise UserError(f"{folder} holds no corruption: {_EXPECTED}")
    corrupted = []
    for name in [name for name in (*CORRUPTIONS, *EXTRA) if name in found]:
        for severity in SEVERITIES:
            place = found[name] / str(severity)
            if not place.is_dir():
                archive = next(archive for archive, names in ARCHIVES.items() if name in names)
                raise UserError(
                    f"{found[name]} lacks severity {severity}: expected folders 1 to 5 in it; "
                    f"unpack all of {archive}.tar"
                )
            layout.check(place)
            corrupted.append(CorruptedFolder(corruption=name, severity=severity, folder=place))
    return corrupted


_EXPECTED = "expected CORRUPTION/SEVERITY/WNID/*.JPEG in it, such as gaussian_noise/1/n01440764"


def _corruptions(folder: Path, archive: str = ""):
    """(name, folder) of each corruption, also of those in the folder of an archive."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not there: {_EXPECTED}")
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name) or not path.is_dir():
            continue
        if path.name in ARCHIVES and not archive:
            yield from _corruptions(path, path.name)
        elif path.name in (*CORRUPTIONS, *EXTRA):
            yield path.name, path
        else:
            raise UserError(f"{folder} has a folder {path.name!r}, which is no corruption of ImageNet-C: {_EXPECTED}")
