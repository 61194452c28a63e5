"""What the files of a run may say, as far as the page reads them; what it does not read may be anything."""

from seitpp.runtime.schema import (
    anything,
    boolean,
    integer,
    listing,
    measured,
    number,
    one_of,
    optional,
    record,
    table,
    text,
)  # fmt: skip

_MEASURE = optional(measured)
_STEPS = dict.fromkeys(("steps", "epochs", "batch_size", "accum_iter"), _MEASURE)

_FEATURE_MAP = record(
    {},
    {"method": text(), "trustworthiness": _MEASURE, "explained_variance": listing(measured, 2)},
)

CONFIG = record(
    {"stage": text(r"[\w./-]+", "the name of a stage")},
    {
        **_STEPS, "dataset": optional(text()), "weights": optional(text()), "pretrain": optional(text()),
        "finetune": optional(text()), "quick": optional(boolean), "model": optional(table(anything)),
        "eval_mask_ratio": measured,
    },
)  # fmt: skip
"""config.yaml."""
SUMMARY = record(
    {},
    {
        "psnr": _MEASURE, "codes_used": _MEASURE, "codebook_size": _MEASURE, "held_out_images": _MEASURE,
        "eval_cross_entropy": _MEASURE, "eval_accuracy": _MEASURE, "unigram_baseline": _MEASURE,
        "position_baseline": _MEASURE, "fingerprint": optional(text()), "neighbour_agreement": _MEASURE,
        "neighbours": optional(integer(0)), "feature_map": _FEATURE_MAP,
    },
)  # fmt: skip
"""summary.json."""
ENVIRONMENT = record(
    {},
    {
        "command": optional(text()), "packages": optional(table(optional(text()))), "git_commit": optional(text()),
        "device": optional(text()), "threads": optional(integer(1)), "python": optional(text()),
        "platform": optional(text()), "cpu": optional(text()), "processes": optional(integer(1)),
    },
)  # fmt: skip
"""env.json."""
COMMAND = record(
    {"command": text()},
    {
        "stage": text(),
        "seconds": optional(number(0)),
        "peak_memory_mb": optional(number(0)),
        "finished": one_of(True, False),
    },
)
"""A line of commands.jsonl."""
