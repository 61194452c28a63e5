"""The ablation's tables: what its runs measured, as tidy rows, as means with paired differences, as Markdown."""

import pandas as pd

from seitpp.downstream.ablation_steps import INGREDIENTS, PLAIN, SCRATCH, folder_of, label_of, method_of, task_of
from seitpp.runtime.results import read_results

MEASURE = "fine-tuning"
"""What tables call the accuracy of fine-tuned classifiers on the evaluation store."""


def gather(config):
    """Every number that the runs of an ablation measured.

    Args:
        config: an AblationConfig whose steps are finished.
    Returns: DataFrame with the columns of seitpp.runtime.results, whose methods tell the ingredients apart, and share,
        ingredient and measure: "fine-tuning", "linear probe", "10-NN" or a set of robustness.
    """
    frames = []
    for seed in config.all_seeds:
        for share in config.shares:
            for ingredient in config.ingredients:
                cell = {"share": share, "ingredient": ingredient}
                tuned = read_results([folder_of(config, seed, share, "finetune", ingredient)])
                frames.append(tuned.assign(**cell, measure=MEASURE))
                probed = read_results([folder_of(config, seed, share, "probe", ingredient)])
                added = "".join(f" + {part}" for part in INGREDIENTS[ingredient])
                kinds = probed.method.str.split(", ").str[0]
                frames.append(probed.assign(**cell, measure=kinds, method=probed.method + added))
            if config.images is not None:
                seen = read_results([folder_of(config, seed, share, "robustness")])
                own = {method_of(ingredient): ingredient for ingredient in INGREDIENTS}
                sets = seen.metric.str.removeprefix("accuracy, ")
                frames.append(seen.assign(share=share, ingredient=seen.method.map(own), measure=sets))
    return pd.concat(frames, ignore_index=True)


def ablation_table(rows):
    """Means over seeds, and differences to plain masked token modelling, paired by seed.

    Args:
        rows: DataFrame as from `gather`.
    Returns: DataFrame, a row for each share, measure, metric and ingredient: mean and sample deviation over seeds,
        mean and sample deviation of the difference by seed (nothing for plain MTM itself, or without it), seeds,
        train_images and test_images. A deviation of one seed is nothing.
    """
    table = []
    for (share, measure, metric), group in rows.groupby(["share", "measure", "metric"], sort=False):
        by_seed = group.pivot(index="seed", columns="ingredient", values="value")
        for ingredient in [each for each in INGREDIENTS if each in by_seed]:
            values = by_seed[ingredient]
            paired = ingredient != PLAIN and PLAIN in by_seed
            difference = values - by_seed[PLAIN] if paired else values * float("nan")
            table.append(
                {
                    "share": share, "measure": measure, "metric": metric, "ingredient": label_of(ingredient),
                    "mean": values.mean(), "deviation": values.std(), "difference": difference.mean(),
                    "difference_deviation": difference.std(), "seeds": int(values.count()),
                    "train_images": int(group.train_images.max()), "test_images": int(group.test_images.max()),
                }
            )  # fmt: skip
    return pd.DataFrame(table)


def as_markdown(table, config):
    """The accuracies of a table as Markdown, one table a share of the labels.

    Args:
        table: DataFrame as from `ablation_table`.
        config: the AblationConfig.
    """
    accuracies = table[table.metric.str.startswith("accuracy")]
    lines = ["A rehearsal of a few steps: these numbers mean nothing.", ""] if config.quick else []
    lines += [_legend(config), ""]
    for share, part in accuracies.groupby("share", sort=False):
        cells = part.assign(text=[_cell(row) for row in part.itertuples()])
        wide = cells.pivot(index="ingredient", columns="measure", values="text")
        measures, ingredients = part.measure.unique(), part.ingredient.unique()
        tuned = part[part.measure == MEASURE].iloc[0]
        lines += [
            f"**{task_of(config, share)}** ({tuned.train_images:,} images; {tuned.test_images:,} test images)",
            "",
            f"| | {' | '.join(measures)} |",
            f"|---|{'---|' * len(measures)}",
            *(f"| {each} | {' | '.join(wide.loc[each, measures])} |" for each in ingredients),
            "",
        ]
    return "\n".join(lines)


def _cell(row):
    text = f"{100 * row.mean:.1f}{_deviation(row.deviation)}"
    if pd.isna(row.difference):
        return text
    return f"{text} ({_points(row.difference)}{_deviation(row.difference_deviation)})"


def _points(value):
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def _deviation(value):
    return "" if pd.isna(value) else f" ± {100 * value:.1f}"


def _legend(config):
    over = "of one seed" if config.seeds == 1 else f"mean ± sample deviation over {config.seeds} seeds"
    words = [f"Accuracy in %, {over}"]
    if PLAIN in config.ingredients:
        words[0] += f"; in brackets the difference to plain {label_of(PLAIN)} in points, paired by seed"
    if SCRATCH in config.ingredients:
        words.append(f"Probes in the row `{label_of(SCRATCH)}` are of the same encoder before any training")
    words.append(f"Recipes: pre-training `{config.pretrain}`, fine-tuning `{config.finetune}`")
    return f"{'. '.join(words)}."
