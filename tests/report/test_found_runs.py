"""What a report is made of: runs, stores, pictures and commands that lie in folders."""

import base64
import io

import numpy as np
from PIL import Image

from report_runs import COMMAND, write_picture, write_run, write_store
from seitpp.report.found_runs import find_runs
from seitpp.report.picture_rows import picture_rows
from seitpp.report.provenance import command_parts


def test_what_belongs_to_a_run_is_not_a_run(demo):
    write_run(demo / "finetune" / "choice" / "blr-0.1", "finetune.train/once")
    write_run(demo / "images" / "train" / "ant" / "odd", "mtm.pretrain")
    write_store(demo / "robustness" / "stores" / "contrast-1", ["a", "b"])
    found = find_runs([demo], skip=[demo / "images"])
    names = ["finetune", "mtm", "probe", "robustness", "scratch", "tokenadapt", "tokenizer"]
    assert [run.label for run in found.runs] == names
    assert [(store.label, store.rows) for store in found.stores] == [("store/train", 12)]
    assert len(found.commands) == 2


def test_a_folder_that_is_given_twice_counts_once(demo):
    found = find_runs([demo, demo / "mtm", demo])
    assert len(found.of("mtm.pretrain")) == 1
    assert len(found.commands) == 2


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for parent in ("a", "b"):
        write_run(tmp_path / parent / "mtm", "mtm.pretrain")
    found = find_runs([tmp_path / "a", tmp_path / "b"])
    assert [run.label for run in found.runs] == [(tmp_path / parent / "mtm").as_posix() for parent in ("a", "b")]


def _pixels(uri):
    """Of a PNG in a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_of_wide_cells_fewer_are_shown_so_that_a_row_fits_on_the_page(tmp_path):
    pixels = np.full((2 * 8 - 2, 13 * 11 - 2, 3), 255, np.uint8)  # 13 cells of 6 x 9
    Image.fromarray(pixels).save(tmp_path / "reconstructions.png")
    (original, _) = picture_rows(tmp_path, "reconstructions.png", side=60)
    assert (original.columns, [part.columns for part in original.parts]) == (8, [4, 4])


def test_a_picture_is_cut_into_its_labelled_rows(tmp_path):
    write_picture(tmp_path, "reconstructions.png", 16)
    rows = picture_rows(tmp_path, "reconstructions.png", side=12)
    assert [(row.label, row.columns) for row in rows] == [("original", 12), ("decoded from its tokens", 12)]
    parts = [part for row in rows for part in row.parts]
    assert [(part.columns, part.width) for part in parts] == [(6, 2 * (6 * 8 - 2))] * 4
    whole, second = (_pixels(uri) for uri in (rows[1].cell, rows[1].parts[1].uri))
    assert whole.shape == (6, 6, 3)
    assert [second[0, 8 * column, 0] for column in range(6)] == [10 + column for column in range(6, 12)]
    assert (whole == 10).all()
    assert picture_rows(tmp_path, "views.png") == []


def test_a_command_may_break_before_its_flags_only():
    parts = command_parts(COMMAND)
    assert parts == [
        "accelerate launch -m seitpp.mtm.pretrain",
        "--config demo",
        "--dataset 'a --b c'",
        "--output_dir runs/mtm",
    ]
    assert " ".join(parts) == COMMAND
