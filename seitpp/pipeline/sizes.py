"""How large and how long each training of a fit is: rules, each with its reason, that read nothing but the facts.

What takes minutes on a CPU has the demo's recipes; on GPUs those for 256 pixels. Further rules:

side       of the tokenizer's input: 64 pixels on CPUs, where 256 take sixteen times as long; on GPUs 256, 128 or 64,
           the largest that the images have. A token is 8 x 8 pixels
codes      512, or fewer where the images have fewer than ten tokens for each: codes that nobody uses are no help
batches    the recipe's, but at most a third of the images, and even: a batch of nearly all of them varies little
MTM        43 passes over the images, as the demo, but 1,500 to 4,600 steps on CPUs; on GPUs 200 passes, 3,000 at least
labels     fine-tuning of 10 passes on CPUs (150 to 1,200 steps), 50 on GPUs (600 at least); three seeds below 20,000
           labels, where they differ by more than a point
lanes      steps that run side by side: two where there are two cores and 3 GB, without a GPU; else one
memory     on a GPU batches halve until they fit (--shrink_batch)
broken     a tenth of the images may be; they are listed
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seitpp.pipeline.facts import Facts

QUICK: dict[str, dict[str, Any]] = {  # of each stage: enough steps for every part of it to run
    "train-tokenizer": {"steps": 60, "warmup_steps": 5},
    "train-tokenadapt": {"steps": 20, "warmup_steps": 2},
    "pretrain": {"steps": 60, "warmup_steps": 5},
    "finetune": {"steps": 15, "warmup_steps": 2, "seeds": 2},
}
DEMO_BATCH = {"train-tokenizer": 32, "train-tokenadapt": 64, "pretrain": 32, "finetune": 48}
"""Batch sizes of the demo's recipes."""
GPU_BATCH = {"train-tokenizer": 32, "train-tokenadapt": 64, "pretrain": 256, "finetune": 64}
"""Of those for 256 pixels."""
MOST_BROKEN = 0.1
"""Fraction of the images that may fail to decode."""
_DEMO = {
    "train-tokenizer": "demo", "tokenize": "demo", "train-tokenadapt": "demo", "pretrain": "demo", "finetune": "demo",
    "probe": "demo",
}  # fmt: skip
_GPU = {
    "train-tokenizer": "vq_256", "tokenize": "demo", "train-tokenadapt": "vq_256", "pretrain": "vit_small_256",
    "finetune": "vit_small_256", "probe": "vit_small_256",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the trainings of a fit are told.

    Attributes:
        recipes: of each stage.
        flags: of each stage, what differs from its recipe: field name to value.
        lanes: steps that run side by side.
        processes: of each training.
    """

    recipes: Mapping[str, str]
    flags: Mapping[str, Mapping[str, Any]]
    lanes: int
    processes: int = 1


def plan(facts: Facts, *, quick: bool = False) -> Sizes:
    """Choose the sizes by the rules above.

    Args:
        facts: what is there.
        quick: a few steps of everything.
    """
    gpus = facts.gpus > 0
    side = next((each for each in (256, 128) if gpus and facts.side >= each), 64)
    grid = facts.grid or (side // 8, side // 8)
    batches = {
        stage: even_third(facts.labelled if stage == "finetune" else facts.images, most)
        for stage, most in (GPU_BATCH if gpus else DEMO_BATCH).items()
    }
    flags: dict[str, dict[str, Any]] = {stage: {"batch_size": batch} for stage, batch in batches.items()}
    flags["train-tokenizer"] |= {"model.image_size": [side, side], "model.codebook_size": _codes(facts.images, grid)}
    for stage in ("train-tokenizer", "tokenize", "train-tokenadapt"):
        flags.setdefault(stage, {})["max_skipped"] = MOST_BROKEN
    passes = facts.images / batches["pretrain"] / max(1, facts.gpus)
    steps = max(3000, round(200 * passes)) if gpus else min(4600, max(1500, round(43 * passes)))
    flags["pretrain"] |= {"steps": steps, "warmup_steps": min(200 if gpus else 100, steps // 10)}
    if facts.classes >= 2:
        passes = facts.labelled / batches["finetune"] / max(1, facts.gpus)
        steps = max(600, round(50 * passes)) if gpus else min(1200, max(150, round(10 * passes)))
        seeds = 3 if facts.labelled < 20_000 else 1
        flags["finetune"] |= {"steps": steps, "warmup_steps": steps // 7, "seeds": seeds}
    if gpus:
        for stage in GPU_BATCH:
            flags[stage]["shrink_batch"] = True
        for stage in ("train-tokenadapt", "pretrain", "finetune"):
            if grid != (32, 32):  # the recipes see 28 x 28 of these
                flags[stage]["view"] = None
    if quick:
        flags = {stage: values | QUICK.get(stage, {}) for stage, values in flags.items()}
    roomy = facts.cores >= 2 and facts.memory >= 3e9
    return Sizes(
        recipes=_GPU if gpus else _DEMO, flags=flags, lanes=2 if roomy and not gpus else 1, processes=max(1, facts.gpus)
    )


def even_third(images: int, most: int) -> int:
    """The largest even batch that is at most a third of the images, and at most `most`; 2 at least."""
    return min(most, max(2, images // 3 // 2 * 2))


def _codes(images: int, grid: tuple[int, int]) -> int:
    """A power of two from 32 to 512."""
    fitting = max(1, images * grid[0] * grid[1] // 10)
    return min(512, max(32, 2 ** int(math.log2(fitting))))
