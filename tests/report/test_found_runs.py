"""What a report is made of: runs, stores, pictures and commands that lie in folders."""

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


def test_a_picture_is_cut_into_its_labelled_rows(tmp_path):
    write_picture(tmp_path, "reconstructions.png", 16)
    rows = picture_rows(tmp_path, "reconstructions.png", side=12)
    assert [(row.label, row.columns) for row in rows] == [("original", 12), ("decoded from its tokens", 12)]
    assert [row.width for row in rows] == [2 * (12 * 8 - 2)] * 2
    assert all(row.uri.startswith("data:image/png;base64,") for row in rows)
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
