"""The sets of images that robustness is measured on: clean, changed, of other domains and benchmarks."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.downstream.altered import SizedOnce
from seitpp.downstream.corruptions import CorruptedImages
from seitpp.downstream.gaussian import BlurredImages, NoisyImages
from seitpp.downstream.imagenet.imagenet_classes import places_in
from seitpp.downstream.imagenet.known import REAL, OpenedSet, Truths, open_benchmark
from seitpp.downstream.imagenet.real_labels import TIMM, RealLabels
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.kept_stores import kept_job
from seitpp.tokenizers.sources.labelled_images import open_labelled_images
from seitpp.tokenizers.sources.source import ImageSource, source_fingerprint
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
        shift: a corruption, a domain, a benchmark, or "" for the clean images.
        severity: of a corruption, 1 to 5; else None.
        open: gives the images, an ImageSource, all labelled; a large set lists them only then.
        given: the field of the configuration that names them, such as "domains.sketch"; "" for images that are made of
            the clean ones.
        classes: places of the classes that may be answered; None: all.
        truths: gives the true classes of an image by its key, where it may have several; None: its label.
        about: what else the pixels depend on: see TokenizeJob.
        store: name of the set whose store it is measured on, which comes before it; "": its own.
        complete: how many images its authors give out of it, where that is known.
    """

    shift: str
    severity: int | None = None
    open: Callable[[], ImageSource]
    given: str = ""
    classes: tuple[int, ...] | None = None
    truths: Truths | None = None
    about: dict[str, Any] = field(default_factory=dict)
    store: str = ""
    complete: int | None = None

    @property
    def images(self) -> ImageSource:
        """The images; of a large set they are listed anew each time."""
        return self.open()

    @property
    def name(self) -> str:
        """Of the set, such as "contrast-3"."""
        shift = self.shift.replace(":", "-") or CLEAN
        return "-".join(str(part) for part in (shift, self.severity) if part is not None)

    def job(self, config: "RobustnessConfig", folder: Path, tokenizer: Tokenizer) -> TokenizeJob:
        """The job that makes its store in `folder`; it refuses a store of other images, tokenizer or noise.

        Args:
            config: a RobustnessConfig.
            folder: of all stores.
            tokenizer: a Tokenizer on its device.
        """
        return kept_job(config, folder / (self.store or self.name), self.open(), tokenizer, self.about)


def shifted_sets(config: "RobustnessConfig", classes: list[str]) -> list[ShiftedSet]:
    """The clean images, what is made of them, each domain and each benchmark. No image is decoded yet.

    Args:
        config: a RobustnessConfig.
        classes: class names, in the classifiers' order.
    Raises: UserError if images can't be opened, are of a class that `classes` lacks, or have no labels.
    """
    found = open_labelled_images(config.images, classes, ground_truth=config.ground_truth, class_list=config.class_list)
    clean = SizedOnce(found)  # the noise of a corruption is keyed by the place in them
    sets = [ShiftedSet(shift="", open=partial(_same, clean), given="images"), *_made_of(clean, config)]
    for name, place in config.domains.items():
        images = open_labelled_images(place, classes)
        sets.append(ShiftedSet(shift=name, open=partial(_same, images), given=f"domains.{name}"))
    for name, place in config.benchmarks.items():
        given = f"benchmarks.{name}"
        if name == REAL:
            truths = RealLabels(place, places_in(classes).tolist())
            _require_answers(truths, clean.keys)
            sets.append(ShiftedSet(shift=REAL, open=partial(_same, clean), truths=truths, store=CLEAN, given=given))
        else:
            sets += [_benchmark_set(each, given) for each in open_benchmark(name, place, classes)]
    return sorted(sets, key=lambda each: (each.store or each.name) != CLEAN)  # those of one store side by side


def set_fingerprints(sets: list[ShiftedSet], config: "RobustnessConfig") -> dict[str, str]:
    """What tells the images of a run from others, by the field that names them.

    ImageNet-C's images are known by the names of its folders here: its stores refuse others when they are made.
    """
    found = {}
    for each in [each for each in sets if each.given]:
        if each.shift == REAL:
            place = config.benchmarks[REAL]
            content = b"" if place == TIMM else Path(place).read_bytes()
            found[each.given] = hashlib.sha256(content).hexdigest()
        elif each.severity is None:
            found[each.given] = source_fingerprint(each.open())
        else:
            known = found.get(each.given, "")
            found[each.given] = hashlib.sha256(f"{known} {each.name}".encode()).hexdigest()
    return found


def _made_of(clean: ImageSource, config: "RobustnessConfig") -> list[ShiftedSet]:
    """What is made of the clean images."""
    sets = []
    if config.corruptions:
        package = metadata.version("imagecorruptions-imaug") if _is_there("imagecorruptions-imaug") else ""
        for name in config.corruptions:
            for level in config.severities:
                about = {"corruption": f"{name}-{level}", "seed": config.seed, "imagecorruptions-imaug": package}
                images = CorruptedImages(clean, name, level, config.seed)
                sets.append(ShiftedSet(shift=name, severity=level, open=partial(_same, images), about=about))
    for std in config.noise_stds:
        images = NoisyImages(clean, std, config.seed)
        about = {"noise_std": std, "seed": config.seed}
        sets.append(ShiftedSet(shift=f"noise-std-{std:g}", open=partial(_same, images), about=about))
    for sigma in config.blur_sigmas:
        about = {"blur_sigma": sigma}
        images = BlurredImages(clean, sigma)
        sets.append(ShiftedSet(shift=f"blur-sigma-{sigma:g}", open=partial(_same, images), about=about))
    return sets


def _benchmark_set(each: OpenedSet, given: str) -> ShiftedSet:
    return ShiftedSet(
        shift=each.shift, severity=each.severity, open=each.open, given=given, classes=each.classes,
        truths=each.truths, about=each.about, complete=each.complete,
    )  # fmt: skip


def _require_answers(truths: Truths, keys: list[str]) -> None:
    answers = [truths(key) for key in keys]  # of all: each key is checked
    if not any(answers):
        raise UserError("ImageNet-ReaL has no label of any of --images that the classifier knows")


def _is_there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _same(images: ImageSource) -> ImageSource:
    return images
