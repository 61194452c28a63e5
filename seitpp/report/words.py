"""Words for people, made of the identifiers in results; nothing is parsed back from them.

    finetune, mtm, tokenadapt   "fine-tuned from MTM + TokenAdapt"
    linear, mtm                 "linear probe, MTM encoder"
    gaussian_noise, (1, 3, 5)   "gaussian noise", "average over severities 1, 3, 5"

An identifier that is not known here is shown as it is, with spaces for underscores.
"""

import re
from collections.abc import Iterable

from seitpp.report.methods import Method

MINUS = "\u2212"
TIMES = "\u00d7"
_PROTOCOLS = {
    "finetune": "fine-tuning",
    "linear": "linear probe",
    "linear_grid": "linear probe, best of a grid",
    "linear_grid_augmented": "linear probe, best of a grid, augmented",
    "attentive": "attentive probe",
    "attentive_augmented": "attentive probe, augmented",
    "majority": "majority class",
}
_METRICS = {
    "accuracy": "top-1 accuracy",
    "accuracy_low": "95 % interval, from",
    "accuracy_high": "95 % interval, to",
    "top5": "top-5 accuracy",
    "mean_per_class": "mean accuracy of the classes",
    "cross_entropy": "cross-entropy",
    "ece": "calibration error",
    "mean_accuracy": "mean accuracy",
    "mce": "mean corruption error (mCE)",
    "relative_mce": "relative mCE",
}
_SHIFTS = {
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "imagenet-sketch": "ImageNet-Sketch",
    "imagenet-v2": "ImageNet-V2",
    "imagenet-v2-threshold": "ImageNet-V2, threshold 0.7",
    "imagenet-v2-top": "ImageNet-V2, top images",
    "imagenet-real": "ImageNet-ReaL",
    "objectnet": "ObjectNet",
    "imagenet-c": "ImageNet-C",
    "imagenet-c-generated": "corruptions of ImageNet-C, generated",
}
_STRENGTHS = {"noise-std-": "Gaussian noise, std {}", "blur-sigma-": "Gaussian blur, sigma {} px"}
_IMAGENET_C = "imagenet-c:"
_AUGMENTATIONS = {"tokenadapt": "TokenAdapt", "coloradapt": "ColorAdapt"}
_FEATURES = {
    "random": "random encoder",
    "classifier": "encoder of a classifier",
    "pixels": "16 x 16 pixels",
    "bag-of-tokens": "bag of tokens",
    "scratch": "encoder trained from scratch",
}


def protocol(name: str) -> str:
    """How labels were learned: "fine-tuning", "linear probe", "10-NN"."""
    neighbours = re.fullmatch(r"knn(\d+)", name)
    return f"{neighbours[1]}-NN" if neighbours else _PROTOCOLS.get(name, _plain(name))


def start(init: str, augmentation: str = "") -> str:
    """Where a network starts: "from scratch", "MTM", "MTM + TokenAdapt + ColorAdapt"."""
    if init == "scratch":
        return "from scratch"
    first = "MTM" if init == "mtm" else _plain(init)
    parts = [_AUGMENTATIONS.get(part, _plain(part)) for part in augmentation.split("+") if part]
    return " + ".join((first, *parts))


def from_start(init: str, augmentation: str = "") -> str:
    """The start of a network within a sentence: "from MTM", "from MTM + TokenAdapt", "from scratch"."""
    return start(init) if init == "scratch" else f"from {start(init, augmentation)}"


def method(each: Method, *, augmentation: bool = False) -> str:
    """A method by its protocol and start, such as "fine-tuned from MTM"; with its augmentation if asked for."""
    begun = start(each.init, each.augmentation if augmentation else "")
    if each.protocol == "finetune":
        return begun if each.init == "scratch" else f"fine-tuned from {begun}" if each.init else "fine-tuned"
    if not each.init:
        return protocol(each.protocol)
    features = f"{begun} encoder" if each.init == "mtm" else _FEATURES.get(each.init, _plain(each.init))
    return f"{protocol(each.protocol)}, {features}"


def method_names(methods: Iterable[Method]) -> dict[Method, str]:
    """A name for each of the methods of one table, each name once.

    What is the same for all methods of a protocol and start is left out: the augmentation, the fraction of the labels,
    the budget, how images are stored. Methods that share all of these are told apart by the runs that measured them.
    """
    methods = list(dict.fromkeys(methods))
    names = {}
    for each in methods:
        akin = [other for other in methods if (other.protocol, other.init) == (each.protocol, each.init)]
        name = method(each, augmentation=len({other.augmentation for other in akin}) > 1)
        if len({other.label_fraction for other in akin}) > 1:
            name += f", {label_fraction(each.label_fraction)}"
        if len({other.budget_bytes for other in akin}) > 1:
            what = storage(each.storage)
            name += f", all {what}" if each.budget_bytes is None else f", {size(each.budget_bytes)} of {what}"
        elif len({other.storage for other in akin}) > 1:
            name += f", on {storage(each.storage)}"
        names[each] = f"{name} ({each.run})" if each.run else name
    return names


def metric(name: str) -> str:
    """What is measured: "top-5 accuracy", "calibration error"."""
    return _METRICS.get(name, _plain(name))


def with_unit(metric_name: str, mean: float, std: float | None = None) -> str:
    """A value of a metric: nats of a cross-entropy, "1.204 nats"; of others, which are fractions, percent: "58.0 %"."""
    if metric_name == "cross_entropy":
        return f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}") + " nats"
    return f"{percent(mean, std)} %"


def shift(name: str) -> str:
    """What was done to the images: "clean", "gaussian noise", "ImageNet-A", "ImageNet-C, fog", "sketch"."""
    if not name:
        return "clean"
    if name.startswith(_IMAGENET_C):
        return f"{_SHIFTS['imagenet-c']}, {corruption(name)}"
    for beginning, text in _STRENGTHS.items():
        if name.startswith(beginning):
            return text.format(name.removeprefix(beginning))
    return _SHIFTS.get(name, _plain(name))


def corruption(name: str) -> str:
    """A corruption without where it is from: "fog" of ImageNet-C's fog and of one that was generated."""
    return _plain(name.removeprefix(_IMAGENET_C))


def severities(levels: Iterable[int]) -> str:
    """Over which severities a number is: "average over severities 1, 3, 5", "severity 3"; "" for none."""
    levels = sorted(levels)
    if len(levels) < 2:
        return f"severity {levels[0]}" if levels else ""
    return f"average over severities {', '.join(map(str, levels))}"


def measure(protocol_name: str, shift_name: str) -> str:
    """What a column of the ablation measures: "fine-tuning", "10-NN", "gaussian noise"."""
    if not shift_name:
        return protocol(protocol_name)
    return shift(shift_name) if protocol_name == "finetune" else f"{protocol(protocol_name)}, {shift(shift_name)}"


def label_fraction(fraction: float) -> str:
    """A fraction of the labels: "20 % of the labels"."""
    return f"{100 * fraction:.3g} % of the labels"


def storage(name: str) -> str:
    """How images are stored: "tokens", "JPEGs of quality 75", "JPEGs of quality 75, 32 pixels a side"."""
    if name in ("", "jpeg_fit"):
        return "JPEGs of the quality that fits" if name else "tokens"
    jpeg = re.fullmatch(r"jpeg(\d+)(?:_side(?:(\d+)|_fit))?", name)
    if not jpeg:
        return _plain(name)
    side = f"{jpeg[2]} pixels a side" if jpeg[2] else "of the side that fits" if name.endswith("_fit") else ""
    return f"JPEGs of quality {jpeg[1]}" + (f", {side}" if side else "")


def percent(mean: float, std: float | None = None) -> str:
    """A fraction in percent, with its standard deviation if there is one: "58.0 ± 0.3"."""
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def points(value: float, std: float | None = None) -> str:
    """A difference of fractions in percentage points, signed: "+6.2 ± 0.7"."""
    return f"{100 * value:+.1f}".replace("-", MINUS) + ("" if std is None else f" ± {100 * std:.1f}")


def size(value: float) -> str:
    """Bytes in the unit that fits: "4.32 kB"."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{value / step:.3g} {unit}"
    return f"{value:.0f} bytes"


def number(value: float, digits: int = 1) -> str:
    """A number with its digits, thousands apart: "1,234.5"."""
    return f"{value:,.{digits}f}".replace("-", MINUS)


def by(sizes: Iterable[int]) -> str:
    """Sides of a grid or an image: "16 x 24", with a real cross."""
    return f" {TIMES} ".join(map(str, sizes))


def _plain(name):
    return name.replace("_", " ")
