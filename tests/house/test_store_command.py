"""`seitpp store ACTION STORE`: look at a store, check it, exchange it, from the command line."""

import dataclasses
import importlib
import json

import pytest
import torch

import tiny
from published import FOLDER, recording, release_labels
from seitpp.cli import main as seitpp
from seitpp.store_cli import ACTIONS, as_flags
from seitpp.tokens.store import TokenStore

GRID = (3, 5)
CODES = 391


@pytest.fixture
def folder(tmp_path):
    """16 rows in shards of 7, 7 and 2."""
    return tiny.make_store(tmp_path / "store", tiny.random_ids(16, CODES, GRID), codes=CODES)


@pytest.fixture
def says(capsys, monkeypatch):
    """Run `seitpp store words...` and return (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["seitpp"])
        code = 0
        try:
            seitpp(["store", *map(str, words)])
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def complains(says):
    """Run `seitpp store words...`, which fails, and return its one line."""

    def run(*words):
        code, out, err = says(*words)
        assert (code, out) == (1, "")
        line = tiny.one_line(err)
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


# Actions


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_nothing_at_all_is_a_call_for_help(says, words):
    code, out, err = says(*words)
    assert (code, err) == (0, "")
    for action in ACTIONS:
        assert f"  {action} " in out


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_a_function_of_a_documented_configuration(action):
    module, config_class, function, text = ACTIONS[action]
    module = importlib.import_module(module)
    assert callable(getattr(module, function))
    names = [field.name for field in dataclasses.fields(getattr(module, config_class))]
    assert ("store" in names) == (action != "import")
    assert text


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help_with_all_its_flags(says, action):
    code, out, _ = says(action, "--help")
    module, config_class, _, _ = ACTIONS[action]
    assert code == 0
    assert f"seitpp store {action}" in out
    for field in dataclasses.fields(getattr(importlib.import_module(module), config_class)):
        assert f"--{field.name} " in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["vrify", "x"], "no action vrify of seitpp store; did you mean verify?"),
        (["qqq"], "no action qqq of seitpp store; there are: info, verify,"),
        (["info", "x", "--jsn"], "unknown flag --jsn; did you mean --json?"),
        (["export", "x", "--fromat", "seit"], "unknown flag --fromat; did you mean --format?"),
        (["export", "x", "--format", "tar", "--out", "y"], "format"),
        (["info"], "the following arguments are required: store"),
        (["import", "--from", "seit"], "required"),
        (["info", "nothing"], "nothing is not a token store (no store.json): make one with seitpp tokenize"),
        (["usage", "nothing"], "nothing is not a token store"),
        (["export", "nothing", "--format", "seit", "--out", "y"], "nothing is not a token store"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_and_exit_code_1(complains, words, line):
    assert line in complains(*words)


def test_people_may_write_the_store_first_from_and_a_bare_json():
    assert as_flags("info", ["s", "--json"]) == ["--store", "s", "--json=true"]
    assert as_flags("info", ["--json", "false", "--store", "s"]) == ["--json", "false", "--store", "s"]
    assert as_flags("import", ["--from", "seit", "--data", "d"]) == ["--source", "seit", "--data", "d"]
    assert as_flags("import", ["--from=seit"]) == ["--source=seit"]
    assert as_flags("verify", []) == []


# Each of them


def test_info_says_what_the_store_holds(says, folder):
    code, out, _ = says("info", folder)
    assert code == 0
    total = sum(path.stat().st_size for path in folder.iterdir())
    for part in [
        "16", "3 x 5 of K = 391 (9 bits each)", "17 bytes", "3: ant, bee, cow", "vq aaaaaaaaaaaa, euclidean",
        "tokens, label, key", f"{total:,}: tokens 272, labels 64, keys 192, container ",
    ]:  # fmt: skip
        assert part in out


def test_info_in_json_is_the_whole_manifest(says, folder):
    code, out, _ = says("info", folder, "--json")
    assert code == 0
    said = json.loads(out)
    size = said.pop("bytes")
    assert said == {"rows": 16, "row_bytes": 17, **json.loads((folder / "store.json").read_text())}
    assert (size["tokens"], size["labels"], size["keys"], size["masks"]) == (16 * 17, 16 * 4, 16 * (4 + 8), 0)
    assert size["total"] == sum(path.stat().st_size for path in folder.iterdir())


def test_verify_says_how_much_it_checked(says, folder):
    code, out, _ = says("verify", folder)
    assert code == 0
    assert tiny.one_line(out) == f"{folder}: 16 rows in 3 shards, all as written"


def test_verify_names_the_bad_shard(complains, folder):
    (folder / "shard-00001.arrow").unlink()
    assert "shard-00001.arrow is missing" in complains("verify", folder)


def test_usage_and_synonyms_are_printed_and_written(says, folder):
    assert "codes used" in says("usage", folder)[1]
    assert len(json.loads(says("usage", folder, "--json")[1])["counts"]) == CODES
    assert "5 synonyms of each of 391 codes" in tiny.one_line(says("synonyms", folder)[1])
    assert len(json.loads((folder / "synonyms.json").read_text())) == CODES


def test_the_release_is_imported_and_exported_to_the_same_parity_labels(says, tmp_path):
    codebook, labels = recording("codebook")["codebook"], release_labels()
    torch.save(codebook, tmp_path / "codebook.ckpt")
    code, out, err = says(
        "import", "--from", "seit", "--data", FOLDER / "tiny-train-token.data.bin.gz", "--labels",
        FOLDER / "tiny-train-label.txt", "--codebook", tmp_path / "codebook.ckpt", "--grid", "32,32",
        "--output_dir", tmp_path / "store",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"{len(labels)} images, {max(labels) + 1} classes, K = {len(codebook)}" in out
    code, out, err = says("export", tmp_path / "store", "--format", "seit", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert list(map(int, (tmp_path / "out" / "store-label.txt").read_text().splitlines())) == labels


def test_a_store_goes_through_parquet(says, folder, tmp_path):
    assert says("export", folder, "--format", "parquet", "--out", tmp_path / "out")[0] == 0
    assert says("import", "--from", "parquet", "--data", tmp_path / "out", "--output_dir", tmp_path / "back")[0] == 0
    back, store = TokenStore(tmp_path / "back"), TokenStore(folder)
    assert back.ids(range(16)).tolist() == store.ids(range(16)).tolist()


def test_a_subset_is_a_store(says, folder, tmp_path):
    code, _, err = says("subset", folder, "--count", "5", "--output_dir", tmp_path / "part")
    assert (code, err) == (0, "")
    assert says("verify", tmp_path / "part")[0] == 0
    assert len(TokenStore(tmp_path / "part")) == 5


def test_a_subset_is_exported_as_what_it_is(says, folder, tmp_path):
    says("subset", folder, "--classes", "[cow, ant]", "--count", "5", "--output_dir", tmp_path / "part")
    assert says("export", tmp_path / "part", "--format", "parquet", "--out", tmp_path / "out")[0] == 0
    assert says("import", "--from", "parquet", "--data", tmp_path / "out", "--output_dir", tmp_path / "back")[0] == 0
    part, back = TokenStore(tmp_path / "part"), TokenStore(tmp_path / "back")
    assert back.classes == part.classes == ["cow", "ant"]
    assert back.ids(range(5)).tolist() == part.ids(range(5)).tolist()
    assert back.labels.tolist() == part.labels.tolist()
    assert back.keys() == part.keys()
    assert "subset" not in back.manifest
