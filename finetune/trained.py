"""Trained classifiers, known by what their runs say of them before any is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seitpp.finetune.classifier import DESCRIBED
from seitpp.runtime.errors import UserError
from seitpp.runtime.rights import check_listable
from seitpp.runtime.schema import record
from seitpp.runtime.weights import fingerprint_of, load_weights, read_config


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """What is known of a classifier before it is loaded.

    Attributes:
        folder: of its seed's run, or of weights alone.
        seed: of its training; 0 of weights alone.
        class_names: in the order of its logits.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        weights: fingerprint of its weights.
        origin: columns of its results: init, augmentation, label_fraction and train_images; those that weights of
            older versions do not name are unknown.
    """

    folder: Path
    seed: int
    class_names: list[str]
    tokenizer: str
    weights: str
    origin: dict[str, Any]


def find_classifiers(runs: tuple[str, ...], tokenizer: str) -> list[TrainedClassifier]:
    """The classifiers of some runs of seitpp.finetune.train, all seeds of each.

    Args:
        runs: their folders.
        tokenizer: fingerprint of the tokenizer that they must read.
    Raises: UserError if one is no such run, of another tokenizer, or has other classes than the first; or if results
        could not tell two apart.
    """
    found = [each for run in runs for each in classifiers_of(run)]
    known = {}
    for each in found:
        if each.tokenizer != tokenizer:
            raise UserError(f"{each.folder} was trained on tokens of another tokenizer ({each.tokenizer[:12]})")
        if each.class_names != found[0].class_names:
            raise UserError(f"{each.folder} knows other classes than {found[0].folder}: measure them in separate runs")
        twin = known.setdefault((each.seed, *sorted(each.origin.items())), each)
        if twin is not each:
            raise UserError(
                f"{each.folder} and {twin.folder} are of the same seed, start and augmentation: measure them in "
                "separate runs, which may share --stores"
            )
    return found


def classifiers_of(run: str | Path) -> list[TrainedClassifier]:
    """The classifiers of one run, all seeds of it; or the one of a seed's folder, or of a folder with weights.

    Raises: UserError if there are none.
    """
    run = Path(run)
    check_listable(run)
    seeds = sorted(run.glob("seed-*"), key=lambda folder: (len(folder.name), folder.name))
    if not seeds and not any((run / name / "model.safetensors").is_file() for name in ("", "weights")):
        raise UserError(f"{run} is not a run of seitpp finetune (no seed-… folder in it, and no weights)")
    return [_described(folder) for folder in seeds or [run]]


def _described(folder):
    if "class_names" not in read_config(folder, record({})):
        raise UserError(f"{folder} has weights, but not of a classifier: give a run of seitpp finetune")
    state, described = load_weights(folder, DESCRIBED)
    unknown = {"init": "", "augmentation": "", "label_fraction": 1.0, "budget_bytes": None, "train_images": 0}
    origin = described.get("origin") or {}
    return TrainedClassifier(
        folder=folder, seed=_seed_of(folder),
        class_names=described["class_names"] or [str(number) for number in range(described["classes"])],
        tokenizer=described["tokenizer"], weights=fingerprint_of(state, {}),
        origin={name: origin.get(name, value) for name, value in unknown.items()},
    )  # fmt: skip


def _seed_of(folder):
    """The number in the name of a seed's folder, which may be that of the weights in it; else 0."""
    name = folder.parent.name if folder.name == "weights" else folder.name
    number = name.removeprefix("seed-")
    return int(number) if number != name and number.isdigit() else 0
