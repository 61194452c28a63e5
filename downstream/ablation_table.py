"""The ablation's numbers: what its runs measured, and means with differences paired by seed."""

from typing import TYPE_CHECKING

import pandas as pd

from seitpp.downstream.ablation_steps import SCRATCH, folder_of
from seitpp.runtime.results import read_results

if TYPE_CHECKING:
    from seitpp.downstream.ablation import AblationConfig


CELL = ("label_fraction", "protocol", "shift", "metric")
"""The columns that tell the cells of the table apart; in each, methods are compared."""
METHOD = ("init", "augmentation")


def gather(config: "AblationConfig") -> pd.DataFrame:
    """Every number that the runs of an ablation measured.

    Args:
        config: an AblationConfig whose steps are finished.
    Returns: DataFrame of the schema of results.
    """
    folders = []
    for seed in config.all_seeds:
        for fraction in config.label_fractions:
            for ingredient in config.ingredients:
                folders += [folder_of(config, seed, fraction, kind, ingredient) for kind in ("finetune", "probe")]
            if config.images is not None:
                folders.append(folder_of(config, seed, fraction, "robustness"))
    return read_results(folders)


def ablation_table(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and differences to plain masked token modelling, paired by seed.

    A probe of the encoder before any training (init "random") is the control of training from scratch: it counts as
    init "scratch". Numbers at several severities of a shift are averaged first.

    Args:
        results: DataFrame of the schema of results.
    Returns: DataFrame, a row for each label fraction, protocol, shift, metric, init and augmentation: mean and sample
        standard deviation over seeds, the same of the difference by seed to init "mtm" without augmentation (missing
        for that itself, or without it), seeds, train_images and test_images. A std of one seed is missing.
    """
    results = results.assign(init=results.init.replace("random", SCRATCH))
    counted = {"train_images": "max", "test_images": "max"}
    values = results.groupby([*CELL, *METHOD, "seed"], sort=False).agg({"value": "mean", **counted}).reset_index()
    table = []
    for cell, group in values.groupby(list(CELL), sort=False):
        by_seed = group.pivot(index="seed", columns=list(METHOD), values="value")
        plain = by_seed.get(("mtm", ""))
        for method in group[list(METHOD)].drop_duplicates().itertuples(index=False):
            column = by_seed[tuple(method)]
            paired = plain is not None and tuple(method) != ("mtm", "")
            difference = column - plain if paired else column * float("nan")
            table.append(
                {
                    **dict(zip((*CELL, *METHOD), (*cell, *method), strict=True)),
                    "mean": column.mean(), "std": column.std(),
                    "difference": difference.mean(), "difference_std": difference.std(),
                    "seeds": int(column.count()), **{name: int(group[name].max()) for name in counted},
                }
            )  # fmt: skip
    return pd.DataFrame(table)
