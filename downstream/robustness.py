"""Accuracy of fine-tuned classifiers on corrupted images and in other domains, all tokenised on the way.

    python -m seitpp.downstream.robustness --classifiers runs/finetune --images photos/test --tokenizer runs/tokenizer \
        --domains '{sketch: photos/sketch}' --output_dir runs/robustness

Corruptions are those of ImageNet-C (Hendrycks and Dietterich 2019), by the package imagecorruptions-imaug.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from einops import rearrange

from seitpp.finetune.classifier import load_classifier
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import RunFolder
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.views import centre


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(StageConfig):
    """Accuracy of classifiers on corrupted images and in other domains."""

    classifiers: tuple[str, ...]
    """runs of seitpp.finetune.train; every seed in them is measured"""
    tokenizer: str
    """run or weights of the classifiers' tokenizer"""
    images: str
    """folder of class folders: the clean test images"""
    corruptions: tuple[str, ...] = ("gaussian_noise", "contrast")
    """names of ImageNet-C"""
    severities: tuple[int, ...] = (1, 3, 5)
    """1 (least) to 5; accuracies are averaged over them"""
    domains: dict[str, str] = field(default_factory=dict)
    """other folders with the same classes: name to folder"""
    task: str = "classification"
    """what the tables call this task"""
    batch_size: int = 128
    """images per forward pass"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "classifiers", bool(self.classifiers), "must name at least one run")
        require(self, "severities", all(1 <= level <= 5 for level in self.severities), "must lie in 1 to 5")


def main(config):
    """Measure every classifier on clean images, each corruption and each domain; write results.csv."""
    accelerator = make_accelerator("no")
    if not accelerator.is_main_process:
        return
    run = RunFolder(config, stage="downstream.robustness")
    if run.finished:
        print(f"{run.path}: finished before, nothing to do")
        return
    device = accelerator.device
    tokenizer = load_tokenizer(config.tokenizer, device)
    seeds = [folder for name in config.classifiers for folder in _seed_folders(name)]
    classifiers = [(method, seed, *_matching(folder, tokenizer, device)) for folder, method, seed in seeds]
    class_names = classifiers[0][3]
    for (folder, _, _), (_, _, _, names) in zip(seeds, classifiers, strict=True):
        if names != class_names:
            raise UserError(f"{folder} knows other classes than {seeds[0][0]}: measure them in runs of their own")
    clean = _pixels(config.images, class_names, tokenizer)
    sets = {"clean": [clean]}
    total = len(config.corruptions) * len(config.severities)
    with Progress(total, "corruptions") as progress:
        for name in config.corruptions:
            sets[name] = []
            for severity in config.severities:
                sets[name].append((corrupt(clean[0], name, severity, seed=config.seed), clean[1]))
                progress.update(progress.done + 1, name)
    for name, folder in config.domains.items():
        sets[name] = [_pixels(folder, class_names, tokenizer)]
    results = []
    for name, versions in sets.items():
        tokenised = [(encode_all(tokenizer, pixels, config.batch_size, device), labels) for pixels, labels in versions]
        for method, seed, classifier, _ in classifiers:
            accuracies = [_accuracy(classifier, ids, labels, config.batch_size) for ids, labels in tokenised]
            results.append(
                Result(
                    task=config.task, method=method, metric=f"accuracy, {name.replace('_', ' ')}", seed=seed,
                    value=float(np.mean(accuracies)), train_images=0, test_images=len(versions[0][1]),
                )
            )  # fmt: skip
    write_results(run.path, results)
    run.finish({f"{r.method}, seed {r.seed}, {r.metric}": r.value for r in results})
    accelerator.end_training()


def corrupt(images, name, severity, *, seed):
    """Corrupt images as ImageNet-C does.

    Args:
        images: (n, 3, H, W) float32 in [0, 1], at least 32 pixels a side.
        name: such as "gaussian_noise".
        severity: 1 to 5.
        seed: of the noise; each image has its own.
    Returns: the same shape, new.
    Raises: UserError if the extra is missing, or there is no such corruption.
    """
    try:
        from imagecorruptions import corrupt as corrupt_one
        from imagecorruptions import get_corruption_names
    except ImportError as error:
        raise UserError("robustness needs its extra: pip install 'seitpp[robustness]'") from error
    if name not in get_corruption_names("all"):
        raise UserError(f"no corruption {name!r}; there are: {', '.join(get_corruption_names('all'))}")
    corrupted, state = [], np.random.get_state()  # the package draws from numpy's global generator
    for index, image in enumerate(images):
        np.random.seed(zlib.crc32(f"{seed} {name} {severity} {index}".encode()))
        pixels = rearrange((image * 255.0).round().to(torch.uint8), "c h w -> h w c").numpy()
        corrupted.append(corrupt_one(pixels, severity=severity, corruption_name=name).astype(np.uint8))
    np.random.set_state(state)
    return rearrange(torch.from_numpy(np.stack(corrupted)).to(torch.float32) / 255.0, "n h w c -> n c h w")


@torch.no_grad()
def encode_all(tokenizer, images, batch_size, device):
    """Ids of many images: (n, 3, H, W) to (n, h, w), on `device`."""
    return torch.cat([tokenizer.encode(part.to(device)) for part in images.split(batch_size)])


def _pixels(folder, class_names, tokenizer):
    images = open_image_folder(folder, class_names)
    rows = np.flatnonzero(images.labels >= 0)
    return read_all(images, rows, tokenizer.image_size), torch.from_numpy(images.labels[rows].astype(np.int64))


@torch.no_grad()
def _accuracy(classifier, ids, labels, batch_size):
    parts = [classifier(centre(part, classifier.encoder.view)).argmax(1).cpu() for part in ids.split(batch_size)]
    return float((torch.cat(parts) == labels).double().mean())


def _seed_folders(run):
    """[(folder, method, seed)] of the seeds of a run of seitpp.finetune.train."""
    folders = sorted(Path(run).glob("seed-*"))
    if not folders:
        raise UserError(f"{run} is not a run of seitpp finetune (no seed-… folder in it)")
    config = yaml.safe_load((Path(run) / "config.yaml").read_text())
    method = config["method"] or ("fine-tuned from MTM" if config["weights"] else "from scratch")
    return [(folder, method, int(folder.name.removeprefix("seed-"))) for folder in folders]


def _matching(folder, tokenizer, device):
    classifier, fingerprint, names = load_classifier(folder, device)
    if fingerprint != tokenizer.fingerprint:
        raise UserError(f"{folder} was trained on tokens of another tokenizer ({fingerprint[:12]})")
    return classifier, names


def cli():
    """Run the stage from the command line."""
    run_command(main, RobustnessConfig, recipes="robustness")


if __name__ == "__main__":
    cli()
