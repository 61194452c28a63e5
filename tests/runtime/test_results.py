"""Results: one schema, read as it was written."""

from dataclasses import replace

import numpy as np
import pytest

from seitpp.runtime.errors import UserError
from seitpp.runtime.results import COLUMNS, METHOD, Result, is_results, mean_and_std, read_results, write_results

RESULT = Result(
    dataset="t", metric="accuracy", value=0.25, seed=0, init="mtm", protocol="linear", train_images=5, test_images=7
)


def test_the_columns_are_those_of_the_design():
    assert COLUMNS == (
        "dataset", "split", "shift", "severity", "metric", "value", "seed", "init", "protocol", "augmentation",
        "label_fraction", "train_images", "test_images", "budget_bytes", "storage", "tokenizer", "run",
    )  # fmt: skip


def test_results_come_back_from_several_folders(tmp_path):
    for name in ("one", "two"):
        write_results(tmp_path / name, [replace(RESULT, run=name)])
    table = read_results([tmp_path / "one", tmp_path / "missing", tmp_path / "two"])
    assert table.run.tolist() == ["one", "two"]
    assert table.value.tolist() == [0.25, 0.25]
    assert list(read_results([tmp_path / "missing"]).columns) == list(table.columns) == list(COLUMNS)


def test_a_table_of_before_there_was_storage_is_read_as_tokens_and_known_as_ours(tmp_path):
    write_results(tmp_path, [replace(RESULT, run="now", storage="jpeg10")])
    file = tmp_path / "results.csv"
    assert read_results([tmp_path]).storage.tolist() == ["jpeg10"]
    place = COLUMNS.index("storage")
    lines = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("".join(",".join(line[:place] + line[place + 1 :]) + "\n" for line in lines))
    table = read_results([tmp_path])
    assert list(table.columns) == list(COLUMNS)
    assert (table.storage.item(), table.run.item()) == ("", "now")
    assert is_results(file)
    file.write_text("dataset,split\n")
    assert not is_results(file)


def test_how_images_were_stored_tells_methods_apart(tmp_path):
    write_results(
        tmp_path, [replace(RESULT, storage=each, value=value) for each, value in (("", 0.2), ("jpeg75", 0.4))]
    )
    assert mean_and_std(read_results([tmp_path]), METHOD).set_index("storage")["mean"].to_dict() == {
        "": 0.2, "jpeg75": 0.4
    }  # fmt: skip


@pytest.mark.parametrize("word", ["null", "NA", "nan", "1", "007", "true", "", "a,b", 'say "hi"', "naïve"])
def test_every_word_comes_back_as_it_was(tmp_path, word):
    write_results(tmp_path, [replace(RESULT, dataset=word, init=word)])
    table = read_results([tmp_path])
    assert (table.dataset.item(), table.init.item()) == (word, word)


def test_numbers_come_back_exactly_and_missing_ones_as_missing(tmp_path):
    values = [1 / 3, 1e-300, 0.1 + 0.2]
    write_results(tmp_path, [replace(RESULT, value=value, severity=3, budget_bytes=2**40) for value in values])
    table = read_results([tmp_path])
    assert table.value.tolist() == values
    assert table.severity.tolist() == [3, 3, 3]
    assert table.budget_bytes.tolist() == [2**40] * 3
    write_results(tmp_path, [RESULT])
    assert read_results([tmp_path])[["severity", "budget_bytes"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task,method,metric\na,b,c\n", "no column dataset"),
        ("", "is empty"),
        (",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS) + "\n", "x"),
    ],
)
def test_a_file_that_is_no_table_of_results_is_named(tmp_path, text, said):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=rf"{tmp_path}/results\.csv .*{said}"):
        read_results([tmp_path])


def test_mean_and_std_are_over_seeds(tmp_path):
    seeds = [replace(RESULT, seed=seed, value=value) for seed, value in ((0, 0.2), (1, 0.4), (2, 0.9))]
    write_results(tmp_path, [*seeds, replace(RESULT, protocol="knn10", value=0.5)])
    summary = mean_and_std(read_results([tmp_path]), METHOD).set_index("protocol")
    assert summary.loc["linear", "mean"] == pytest.approx(0.5)
    assert summary.loc["linear", "std"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert summary.loc["linear", "seeds"] == 3
    assert np.isnan(summary.loc["knn10", "std"])
    assert summary.loc["knn10", ["train_images", "test_images"]].tolist() == [5, 7]
