"""What the papers report, as tables of their own beside ours, and as a column of a table of ours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seitpp.report import words
from seitpp.report.reported import IMAGENET, IMAGENET_100, TOKENS, Reported, known_dataset, read_reported
from seitpp.report.tables import Cell, Table

HEADING = "reported by the paper"
_TOKENADAPT = "tokenadapt+coloradapt"
_BUDGETS = {"1.4 GB": 1_400_000_000, "0.8 GB": 800_000_000, "0.3 GB": 300_000_000}


def storage_reported(says: str) -> list[Table]:
    """Accuracy of ImageNet-1k at what it takes when it is stored as pixels, as JPEGs, smaller, or as tokens."""
    figures = [each for each in read_reported() if each.dataset == IMAGENET and not each.shift]
    sizes = [(each.bytes, each) for each in figures if each.bytes and each.bytes >= max(_BUDGETS.values())]
    names = {"SeiT": "tokens (SeiT)", "SeiT++": "tokens (SeiT++)"}
    rows = [
        (names.get(each.method, each.method), [Cell(text=words.size(size), value=size), cell_of(each)])
        for size, each in sorted(sizes, key=lambda pair: (-pair[0], pair[1].value))
        if each.method not in TOKENS or each.method in names
    ]
    caption = f"{says}: bytes and top-1 accuracy of ImageNet-1k, %"
    return [
        Table(name="reported-storage", caption=caption, columns=("stored as", "bytes in total", "accuracy, %"),
              rows=rows, reported=(0, 1))
    ]  # fmt: skip


def results_reported(says: str) -> list[Table]:
    """The papers' classifiers of ImageNet-1k at all their tokens, and their peers on pixels."""
    rows = {name: {"method": name, "shift": ""} for name in ("SeiT", "SeiT++", "MAGE-B", "MAE-B")}
    columns = {"fine-tuning, %": {"protocol": "finetune"}, "linear probe, %": {"protocol": "linear"}}
    return [_table("reported-results", f"{says}: top-1 accuracy on ImageNet-1k", "method", rows, columns)]


def ablation_reported(says: str) -> list[Table]:
    """MTM and augmentation at three budgets of bytes; ColorAdapt and TokenAdapt on ImageNet-100."""
    augmentation = words.start("mtm", _TOKENADAPT).removeprefix("MTM + ")
    rows = {
        "neither": {"init": "scratch", "augmentation": ""},
        "MTM": {"init": "mtm", "augmentation": ""},
        augmentation: {"init": "scratch", "augmentation": _TOKENADAPT},
        f"MTM + {augmentation}": {"init": "mtm", "augmentation": _TOKENADAPT},
    }
    columns = {name: {"bytes": size} for name, size in _BUDGETS.items()}
    shown = {"dataset": IMAGENET, "shift": "", "protocol": "finetune"}
    caption = f"{says}: top-1 accuracy on ImageNet-1k by bytes of tokens, %"
    first = _table(
        "reported-ablation", caption, "start", {name: shown | each for name, each in rows.items()}, columns,
        lambda each: each.paper.startswith("SeiT") and each.method.startswith("SeiT"),
    )  # fmt: skip
    names = {"neither": "", "ColorAdapt": "coloradapt", "TokenAdapt": "tokenadapt", augmentation: _TOKENADAPT}
    second = _table(
        "reported-adapters", f"{says}: top-1 accuracy of a ViT-S on ImageNet-100, %", "augmentation",
        {name: {"augmentation": each} for name, each in names.items()}, {"accuracy, %": {"dataset": IMAGENET_100}},
    )  # fmt: skip
    return [first, second]


def robustness_reported(says: str) -> list[Table]:
    """The papers' classifiers on other images."""
    figures = [each for each in read_reported() if each.shift]
    names = {"noise": "Gaussian noise", "blur": "Gaussian blur"}
    shifts = dict.fromkeys(["", *(each.shift for each in figures)])
    rows = {names.get(shift, words.shift(shift)): {"shift": shift} for shift in shifts}
    methods = ("SeiT", "SeiT++, no MTM")
    columns = {name: {"method": name} for name in methods}
    caption = f"{says}: top-1 accuracy of classifiers of ImageNet-1k, %"
    return [
        _table(
            "reported-robustness", caption, "images", rows, columns,
            lambda each: each.shift != "" or each.bytes == max(_BUDGETS.values()),
        )
    ]  # fmt: skip


def says(datasets: Iterable[str]) -> str:
    """How the captions of these tables begin, beside results on some data sets."""
    same = {known_dataset(name) for name in datasets} == {IMAGENET}
    return "What the papers report" if same else "What the papers report, on other data"


def how_read() -> str:
    """Where the figures were read."""
    figures = read_reported()
    papers = "; ".join(dict.fromkeys(each.paper for each in figures))
    secondary = sum(each.how != "primary" for each in figures)
    if not secondary:
        return f"Read in the papers: {papers}."
    which = "All" if secondary == len(figures) else f"{secondary} of {len(figures)}"
    return (
        f"{which} of the papers\u2019 figures are secondary: not yet checked against the papers themselves ({papers})."
    )


def with_reported(table: Table, cells: Sequence[Cell | None], heading: str = HEADING) -> Table:
    """A table of ours with one more column, the papers'; as it is where they report none of it."""
    if all(cell is None for cell in cells):
        return table
    return replace(
        table, columns=(*table.columns, heading), reported=(*table.reported, len(table.columns) - 1),
        rows=[(name, [*own, cell]) for (name, own), cell in zip(table.rows, cells, strict=True)],
    )  # fmt: skip


def cell_of(figure: Reported | None) -> Cell | None:
    """A figure as a cell, in percent."""
    return None if figure is None else Cell(text=words.percent(figure.value), value=round(100 * figure.value, 6))


def _table(
    name: str, caption: str, first: str, rows: Mapping[str, dict[str, Any]], columns: Mapping[str, dict[str, Any]],
    among: Callable[[Reported], bool] = lambda each: True,
) -> Table:  # fmt: skip
    """A cell is the figure of the most bytes that has the values of its row and its column."""
    figures = [each for each in read_reported() if among(each)]
    return Table(
        name=name, caption=caption, columns=(first, *columns), reported=range(len(columns)),
        rows=[(row, [_find(figures, fields | others) for others in columns.values()]) for row, fields in rows.items()],
    )  # fmt: skip


def _find(figures, wanted):
    found = [each for each in figures if all(getattr(each, name) == value for name, value in wanted.items())]
    return cell_of(max(found, key=lambda each: each.bytes or 0, default=None))
