"""The sets of images that robustness is measured on, each a store to be made: clean, corrupted, of other domains."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from seitpp.downstream.corruptions import CorruptedImages
from seitpp.tokenizers.kept_stores import kept_job
from seitpp.tokenizers.sources.labelled_images import open_labelled_images
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seitpp.downstream.robustness import RobustnessConfig


CLEAN = "clean"
"""Name of the clean images' store; results call their shift ""."""


@dataclass(frozen=True, kw_only=True)
class ShiftedSet:
    """Labelled test images under one shift.

    Attributes:
        shift: a corruption, a domain, or "" for the clean images.
        severity: of a corruption, 1 to 5; else None.
        images: an ImageSource, all labelled.
    """

    shift: str
    severity: int | None = None
    images: ImageSource

    @property
    def name(self) -> str:
        """Of its store, such as "contrast-3"."""
        return "-".join(str(part) for part in (self.shift or CLEAN, self.severity) if part is not None)

    def job(self, config: "RobustnessConfig", folder: Path, tokenizer: Tokenizer) -> TokenizeJob:
        """The job that makes its store in `folder`; it refuses a store of other images, tokenizer or noise.

        Args:
            config: a RobustnessConfig.
            folder: of all stores.
            tokenizer: a Tokenizer on its device.
        """
        about = {}
        if self.severity is not None:
            package = metadata.version("imagecorruptions-imaug")
            about = {"corruption": self.name, "seed": config.seed, "imagecorruptions-imaug": package}
        return kept_job(config, folder / self.name, self.images, tokenizer, about)


def shifted_sets(config: "RobustnessConfig", classes: list[str]) -> list[ShiftedSet]:
    """The clean images, each corruption of them at each severity, and each domain. No image is decoded yet.

    Args:
        config: a RobustnessConfig.
        classes: class names, in the classifiers' order.
    Raises: UserError if images can't be opened, are of a class that `classes` lacks, or have no labels.
    """
    clean = open_labelled_images(config.images, classes)  # the noise of a corruption is keyed by the place in them
    corrupted = [
        ShiftedSet(shift=name, severity=level, images=CorruptedImages(clean, name, level, config.seed))
        for name in config.corruptions
        for level in config.severities
    ]
    domains = [
        ShiftedSet(shift=name, images=open_labelled_images(images, classes)) for name, images in config.domains.items()
    ]
    return [ShiftedSet(shift="", images=clean), *corrupted, *domains]
