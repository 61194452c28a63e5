"""Where commands may write: not to URLs, not into what they read, and not over what is not theirs."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import tiny
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.places import check_places, fresh_output
from seitpp.runtime.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    token_adapt: str | None = None


@dataclass(frozen=True, kw_only=True)
class SomeConfig(StageConfig):
    """A stage."""

    images: str = ""
    labels: str | None = None
    domains: dict[str, str] = field(default_factory=dict)
    classifiers: tuple[str, ...] = ()
    augment: Inner = field(default_factory=Inner)
    stores: str | None = None
    width: int = 3


@dataclass(frozen=True, kw_only=True)
class WritesConfig:
    """A command without a run."""

    store: str
    out: str


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with `photos/train`, `photos/a.tar` and `labels.csv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "photos" / "a.tar").write_text("")
    (tmp_path / "labels.csv").write_text("")
    return tmp_path


def snapshot(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("fields", "output", "relation"),
    [
        ({"images": "photos"}, "photos", "is --images photos"),
        ({"images": "photos"}, "photos/train/../", "is --images photos"),
        ({"images": "photos/"}, "photos/out", "lies in --images photos/"),
        ({"images": "photos/train"}, "photos", "holds --images photos/train"),
        ({"images": "photos/{a..b}.tar"}, "photos", "holds --images"),
        ({"images": "photos/*.tar"}, ".", "holds --images"),
        ({"labels": "labels.csv"}, ".", "holds --labels labels.csv"),
        ({"domains": {"sketch": "photos"}}, "photos/x", "lies in --domains photos"),
        ({"classifiers": ("labels.csv", "photos")}, "link", "is --classifiers photos"),
        ({"augment": Inner(token_adapt="photos")}, "photos", "is --augment.token_adapt photos"),
    ],
)
def test_an_output_that_overlaps_with_what_is_read_is_refused(here, fields, output, relation):
    (here / "link").symlink_to("photos")
    before = snapshot(here)
    with pytest.raises(UserError) as raised:
        check_places(SomeConfig(output_dir=output, **fields))
    assert f"--output_dir {output} {relation}" in tiny.one_line(str(raised.value))
    with pytest.raises(UserError):
        RunFolder(SomeConfig(output_dir=output, **fields), stage="some.stage")
    assert snapshot(here) == before


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"images": "photos/train"}, "photos/out"),
        ({"images": "photos/*.tar"}, "photos/out"),
        ({"images": "hfds/photos"}, "photos"),
        ({"images": "", "labels": "labels.csv"}, "run"),
        ({"images": "https://host/photos"}, "photos"),
    ],
)
def test_places_side_by_side_are_fine(here, fields, output):
    check_places(SomeConfig(output_dir=output, **fields))


def test_a_run_that_was_begun_in_what_it_reads_goes_on_but_is_not_cleared(here):
    """Older versions let it begin."""
    config = SomeConfig(output_dir="photos/run", images="photos/train")
    RunFolder(config, stage="some.stage").log({"step": 1})
    inside = replace(config, images="photos")
    check_places(inside)
    with pytest.raises(UserError, match="lies in --images"):
        check_places(replace(inside, resume="none"))


@pytest.mark.parametrize("name", ["output_dir", "stores"])
def test_a_url_is_refused_where_something_would_be_written(here, name, capsys):
    flags = {"output_dir": "run", name: "s3://bucket/x"}
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    with pytest.raises(SystemExit) as ended:
        run_command(lambda config: pytest.fail("it began to work"), SomeConfig, recipes="none", argv=words)
    assert ended.value.code == 1
    assert f"error: --{name} s3://bucket/x is a URL, which can't be written to" in tiny.one_line(
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match="is a URL"):
        RunFolder(SomeConfig(**flags), stage="some.stage")
    assert not (here / "s3:").exists()


def test_what_is_made_anew_must_not_be_there_nor_lie_in_what_is_read(here):
    fresh_output(WritesConfig(store="photos", out="photos/features.parquet"), folder=False)
    for out, folder, message in [
        ("photos/new", True, "--out photos/new lies in --store photos"),
        ("labels.csv", False, "labels.csv is there already: choose another --out"),
        ("photos", False, "photos is there already"),
        ("gs://bucket/x", False, "is a URL"),
    ]:
        with pytest.raises(UserError, match=message):
            fresh_output(WritesConfig(store="photos", out=out), folder=folder)
    Path("empty").mkdir()
    assert fresh_output(WritesConfig(store="photos", out="empty"), folder=True) == Path("empty")


# Folders of others


@pytest.fixture
def proj(tmp_path):
    """Somebody's project, which a run's names would meet."""
    folder = tmp_path / "proj"
    for name in ("weights/yolo.pt", "checkpoints/step-00000001/mine", "results.csv", "summary.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("resume", ["auto", "none"])
@pytest.mark.parametrize("config", [None, "stage: train\nlr: 3\n", "- a\n", ": :\n"])
def test_a_folder_that_is_no_run_is_refused_and_stays_as_it_is(proj, resume, config):
    if config is not None:
        (proj / "config.yaml").write_text(config)
    before = snapshot(proj)
    with pytest.raises(UserError, match=r"proj holds .* and is not a run of seitpp: choose another --output_dir"):
        RunFolder(SomeConfig(output_dir=str(proj), resume=resume), stage="some.stage")
    assert snapshot(proj) == before


def test_what_systems_put_into_a_folder_does_not_make_it_anothers(tmp_path):
    for name in (".DS_Store", "@eaDir", ".git", "lost+found"):
        (tmp_path / name).mkdir()
    RunFolder(SomeConfig(output_dir=str(tmp_path)), stage="some.stage").log({"step": 0})
    assert (tmp_path / ".git").is_dir()


@pytest.mark.parametrize("resume", ["auto", "none"])
def test_foreign_weights_in_a_run_are_refused_before_anything_is_written(tmp_path, resume):
    config = SomeConfig(output_dir=str(tmp_path / "run"))
    RunFolder(config, stage="some.stage").log({"step": 0})
    (tmp_path / "run" / "weights").mkdir()
    (tmp_path / "run" / "weights" / "yolo.pt").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"weights/yolo.pt is no weights of a run, and would be lost"):
        RunFolder(replace(config, resume=resume), stage="some.stage")
    assert snapshot(tmp_path) == before


def test_starting_afresh_leaves_what_lies_among_the_runs_own(tmp_path):
    config = SomeConfig(output_dir=str(tmp_path / "run"))
    RunFolder(config, stage="some.stage").log({"step": 0})
    own = ("checkpoints/step-00000001/state", "previews/epoch-0001.png", "weights/config.json", "results.csv")
    foreign = ("checkpoints/step-best/state", "previews/mine.png", "notes.txt")
    for name in (*own, *foreign):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    RunFolder(replace(config, resume="none"), stage="some.stage").begin()
    left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {*foreign, "config.yaml", "env.json", ".lock"}


def test_a_run_in_a_link_to_a_missing_folder_is_written_there(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    RunFolder(SomeConfig(output_dir=str(tmp_path / "link")), stage="some.stage").log({"step": 0})
    assert (tmp_path / "disk" / "run" / "metrics.jsonl").exists()
    assert (tmp_path / "link").is_symlink()


# First tries that are refused


def test_a_run_that_does_not_begin_leaves_nothing(tmp_path):
    run = RunFolder(SomeConfig(output_dir=str(tmp_path / "a" / "run")), stage="some.stage")
    assert (tmp_path / "a" / "run" / ".lock").exists()
    del run
    assert list(tmp_path.iterdir()) == []


def test_a_refused_fresh_start_leaves_the_former_run(tmp_path):
    config = SomeConfig(output_dir=str(tmp_path / "run"))
    run = RunFolder(config, stage="some.stage")
    run.finish({"accuracy": 0.5})
    (tmp_path / "run" / "results.csv").write_text("old")
    del run
    before = snapshot(tmp_path)
    fresh = RunFolder(replace(config, resume="none", width=4), stage="some.stage")
    assert not fresh.finished
    del fresh  # refused for another reason
    assert snapshot(tmp_path) == before


def test_what_an_older_version_left_of_a_refused_first_try_is_no_run(tmp_path):
    config = SomeConfig(output_dir=str(tmp_path / "run"))
    outer = RunFolder(config, stage="some.stage")
    RunFolder(replace(config, output_dir=str(tmp_path / "run" / "seed-0")), stage="inner", within=outer).begin()
    del outer
    changed = RunFolder(replace(config, width=4), stage="some.stage")
    assert changed.fresh
