"""Report sections of the stages before any label: tokenizer, storage, TokenAdapt, pre-training.

Each is a list of plain dicts for the template, one for each run of the stage; without runs it is empty, and the
template leaves the section out. Nothing here is HTML but the charts.
"""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from seitpp.report import words
from seitpp.report.findings import entropy_sentence, view_sentences
from seitpp.report.found_runs import Found, reading
from seitpp.report.picture_rows import picture_rows
from seitpp.report.storage import break_even, folder_bytes, storage_table
from seitpp.report.tables import Cell, Table
from seitpp.runtime.charts import Rule, bar, curve, line_chart
from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table

CHEAP = ("naive embedding", "naive id", "TokenAdapt")
REFERENCES = ("decode, warp, encode", "tokenizer")
WAYS = {
    "naive embedding": "embeddings warped", "naive id": "ids warped", "TokenAdapt": "TokenAdapt",
    "decode, warp, encode": "decode, warp, encode", "tokenizer": "tokenizer\u2019s limit",
}  # fmt: skip
"""What tables call the methods of agreement.csv."""


def tokenizer_sections(found: Found) -> list[dict[str, Any]]:
    """Reconstructions of each tokenizer: picture, PSNR, codes used."""
    return [
        {
            "label": run.label,
            "rows": picture_rows(run.path, "reconstructions.png"),
            "model": run.config.get("model", {}),
            **_numbers(run, "psnr", "codes_used", "codebook_size", "held_out_images"),
        }
        for run in found.of("tokenizers.train")
    ]


def storage_sections(found: Found, images: str | Path | None = None) -> list[dict[str, Any]]:
    """Bytes of the stores of each tokenizer against those of their images; no row counts twice.

    Args:
        found: Found.
        images: folder of the images; None: the folder `images` beside the stores, if it holds them.
    """
    groups = {}
    folders = {store.path.resolve() for store in found.stores}
    for store in found.stores:
        if _shard_folders(store) & (folders - {store.path.resolve()}):
            continue  # a subset of a store that counts already
        groups.setdefault((store.root, store.manifest["tokenizer"]["fingerprint"]), []).append(store)
    sections = []
    for (root, fingerprint), stores in groups.items():
        stores.sort(key=lambda store: -store.rows)
        table = _storage(stores, images, root / "images")
        if table.empty:
            continue
        jpeg = table.loc[table["kind"].str.startswith("JPEG"), "bytes_per_image"]
        weights = [
            folder_bytes(run.path / "weights")
            for run in found.of("tokenizers.train")
            if run.summary.get("fingerprint") == fingerprint
        ]
        per_image = table["bytes_per_image"].iloc[1]
        sections.append(
            {
                "label": " + ".join(store.label for store in stores),
                "stores": stores,
                "manifest": stores[0].manifest,
                "size": stores[0].manifest.get("preprocessing", {}).get("image_size"),
                "images": sum(store.rows for store in stores),
                "measured": int(table["measured_images"].min()),
                "rows": [
                    {"kind": row.kind, "per_image": row.bytes_per_image, "total": row.total_bytes}
                    for row in table.itertuples()
                ],
                "tables": [_storage_figures(stores, table)],
                "codebook": (stores[0].path / "codebook.safetensors").stat().st_size,
                "weights": weights[0] if weights else None,
                "pays_off": break_even(weights[0], per_image, jpeg.iloc[0]) if weights and len(jpeg) else None,
                "jpeg": jpeg.iloc[0] if len(jpeg) else None,
            }
        )  # fmt: skip
    return sections


def _storage_figures(stores, table):
    """The Table of `storage_table`."""
    manifest = stores[0].manifest
    packed, limit = table["bytes_per_image"].iloc[0], table["bytes_per_image"].max()
    names = {
        "packed tokens": "packed tokens alone", "coded tokens": "coded tokens alone",
        "token store": "token store, whole folder",
    }  # fmt: skip
    size, label = manifest.get("preprocessing", {}).get("image_size"), " + ".join(store.label for store in stores)
    return Table(
        name=f"storage-{label}",
        caption=f"{sum(store.rows for store in stores):,} images{f' of {words.by(size)} pixels' if size else ''} "
        f"({label}), {words.by(manifest['grid'])} tokens each, one of {manifest['codebook_size']:,} codes",
        columns=("stored as", "bytes per image", "times packed", "bytes in total"),
        rows=[
            (
                names.get(row.kind, row.kind),
                [
                    Cell(text=f"{row.bytes_per_image:,.0f}", value=row.bytes_per_image),
                    Cell(text=f"{row.bytes_per_image / packed:,.1f}", value=row.bytes_per_image / packed),
                    Cell(text=words.size(row.total_bytes), value=row.total_bytes),
                ],
            )
            for row in table.itertuples()
        ],
        bars=[
            bar(row.bytes_per_image, limit, colour="mtm" if place < 2 else "baseline")
            for place, row in enumerate(table.itertuples())
        ],
    )


def _shard_folders(store):
    """Where a store's shards lie: in itself, or, of a subset, in the store that it is of."""
    return {(store.path / shard["file"]).resolve().parent for shard in store.manifest["shards"]}


def _storage(stores, images, beside):
    """storage_table with images where they are given or lie beside the stores, without otherwise."""
    folders = [store.path for store in stores]
    if images is None and beside.is_dir():
        try:
            return storage_table(folders, beside)
        except UserError:  # other images lie there: nobody said that they belong to the stores
            return storage_table(folders)
    return storage_table(folders, images)


def view_sections(found: Found) -> list[dict[str, Any]]:
    """TokenAdapt beside the naive ways: picture, agreement and PSNR by geometry and method."""
    sections = []
    for run in found.of("tokenadapt.train"):
        file = run.path / "agreement.csv"
        table = None
        if file.is_file():
            with reading(file):
                table = read_table(file, ("geometry", "method", "agreement", "psnr"))
                table = table.set_index(["geometry", "method"])[["agreement", "psnr"]].replace("", "nan").astype(float)
                if not table.index.is_unique:
                    raise ValueError("a geometry and method is there twice")
        sections.append(
            {
                "label": run.label,
                "rows": picture_rows(run.path, "views.png"),
                "sentences": [] if table is None else view_sentences(table["agreement"].unstack("method", sort=False)),
                "tables": [] if table is None else _view_tables(run.label, table),
            }
        )
    return sections


def _view_tables(label, table):
    """Agreement in percent and PSNR in dB. Of the agreement the tokenizer's limit is left out: it is all."""
    agreement = _by_geometry(
        100 * table["agreement"], REFERENCES[:1], name=f"views-agreement-{label}",
        caption="Agreement with the tokens of the transformed image, %",
    )  # fmt: skip
    psnr = _by_geometry(
        table["psnr"], REFERENCES, name=f"views-psnr-{label}",
        caption="PSNR of the decoded tokens against the transformed image, dB",
    )  # fmt: skip
    return [agreement, psnr]


def _by_geometry(column, references, *, name, caption):
    """The Table of a measure, a row a geometry; the best of the cheap ways is marked."""
    table = column.unstack("method", sort=False)
    rows = []
    for geometry, row in table.iterrows():
        values = [float(row.get(method, math.nan)) for method in (*CHEAP, *references)]
        best = max((value for value in values[: len(CHEAP)] if math.isfinite(value)), default=None)
        cells = [
            Cell(text=words.number(value), value=value, best=place < len(CHEAP) and value == best)
            if math.isfinite(value)
            else None
            for place, value in enumerate(values)
        ]
        rows.append(("all together" if geometry == "all" else geometry, cells))
    return Table(
        name=name, caption=caption, columns=("geometry", *(WAYS[method] for method in (*CHEAP, *references))),
        rows=rows, muted=range(len(CHEAP), len(CHEAP) + len(references)),
        groups=(("from tokens alone", len(CHEAP)), ("for reference", len(references))),
        totals=[place for place, geometry in enumerate(table.index) if geometry == "all"],
    )  # fmt: skip


def pretraining_sections(found: Found) -> list[dict[str, Any]]:
    """Masked token modelling: completions, curves, cross-entropy against its baselines."""
    sections = []
    for run in found.of("mtm.pretrain"):
        numbers = _numbers(run, "eval_cross_entropy", "eval_accuracy", "unigram_baseline", "position_baseline")
        sections.append(
            {
                "label": run.label,
                "config": run.config,
                "finished": bool(run.summary),
                "rows": picture_rows(run.path, "completions.png"),
                "sentence": None if numbers["eval_cross_entropy"] is None else entropy_sentence(_known(numbers)),
                "chart": _entropy_chart(run, numbers),
                **numbers,
            }
        )
    return sections


def _entropy_chart(run, numbers):
    """Cross-entropy in training and evaluation, the baselines as rules."""
    rules = [
        Rule(label=f"{name} {numbers[key]:.2f}", y=numbers[key])
        for name, key in (("unigram", "unigram_baseline"), ("position", "position_baseline"))
        if numbers[key] is not None
    ]
    trained = "cross_entropy" if any("cross_entropy" in record for record in run.metrics) else "loss"
    lines = [
        curve(run.metrics, trained, offset=1, label="training", colour="other"),
        curve(run.metrics, "eval_cross_entropy", label="evaluation", colour="mtm", marked=True),
    ]
    return line_chart(
        [replace(line, label=f"{line.label} {line.points[-1][1]:.2f}") for line in lines if line.points],
        rules=rules, x_label="step", y_label="cross-entropy, nats per hidden token",
        title="Masked-token cross-entropy against the step, in training and evaluation, baselines as horizontal lines",
    )  # fmt: skip


def _numbers(run, *names):
    """Numbers of a run's summary; None where it has none or one that is not finite."""
    with reading(run.path / "summary.json"):
        values = {name: run.summary.get(name) for name in names}
        return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _known(numbers):
    return {name: value for name, value in numbers.items() if value is not None}
