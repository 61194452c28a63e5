"""The run folder: one run each, gone on with, never mixed with another."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import yaml

import tiny
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder, lock_folder, read_metrics


@dataclass(frozen=True, kw_only=True)
class SomeConfig(StageConfig):
    """A stage."""

    width: int = 7
    scales: tuple[float, ...] = (0.5, 1e-5)
    name: str | None = None
    log_every: int = 20


@pytest.fixture
def config(tmp_path):
    return SomeConfig(output_dir=str(tmp_path / "runs" / "one"))


def open_run(config, stage="some.stage"):
    return RunFolder(config, stage=stage)


def begun_run(config, stage="some.stage"):
    run = open_run(config, stage)
    run.begin()
    return run


def checkpoint(run, step):
    folder = run.path / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state").write_text("state")
    return folder


def test_a_run_keeps_its_resolved_configuration(config):
    run = begun_run(config)
    kept = yaml.safe_load((run.path / "config.yaml").read_text())
    assert kept == {
        "stage": "some.stage", "output_dir": config.output_dir, "resume": "auto", "seed": 0, "width": 7,
        "scales": [0.5, 1e-5], "name": None, "log_every": 20,
    }  # fmt: skip


def test_a_run_keeps_what_it_ran_with(config):
    run = RunFolder(config, stage="some.stage", inputs={"tokenizer": "f" * 64})
    run.begin()
    environment = json.loads((run.path / "env.json").read_text())
    assert environment["inputs"] == {"tokenizer": "f" * 64}
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(environment["packages"]) >= {"torch", "timm", "accelerate", "numpy", "seitpp"}
    assert environment["device"]


def test_the_same_configuration_opens_the_folder_again(config):
    open_run(config).log({"step": 3})
    assert open_run(config).metrics() == [{"step": 3}]


@pytest.mark.parametrize("change", [{"width": 8}, {"seed": 1}, {"name": "x"}, {"scales": (0.5,)}], ids=str)
def test_another_run_is_refused(config, change):
    open_run(config).log({"step": 0})
    (field,) = change
    with pytest.raises(UserError, match=rf"holds another run \({field}: .* there, .* now\).*--resume none") as refused:
        open_run(replace(config, **change))
    tiny.one_line(str(refused.value))


def test_another_stage_is_refused(config):
    open_run(config).log({"step": 0})
    with pytest.raises(UserError, match=r"stage: 'some\.stage' there, 'another' now"):
        open_run(config, stage="another")


def test_how_often_it_logs_and_how_it_resumes_may_change(config):
    open_run(config)
    open_run(replace(config, log_every=1, resume="checkpoints/step-00000001"))


def test_resume_none_clears_what_the_former_run_wrote(config):
    run = open_run(config)
    run.log({"step": 0})
    saved = checkpoint(run, 5)
    run.weights.mkdir()
    (run.path / "results.csv").write_text("old")
    run.finish({"accuracy": 0.5})
    fresh = open_run(replace(config, resume="none", width=9))
    assert not fresh.finished
    assert fresh.checkpoints() == []
    assert saved.exists()  # not before all is in order
    fresh.begin()
    assert not fresh.finished
    assert fresh.metrics() == []
    assert not saved.exists()
    assert not (fresh.path / "results.csv").exists()
    assert not fresh.weights.exists()
    assert yaml.safe_load((fresh.path / "config.yaml").read_text())["width"] == 9


def test_resume_none_leaves_files_that_are_not_the_runs_own(config):
    run = begun_run(config)
    (run.path / "notes.txt").write_text("mine")
    begun_run(replace(config, resume="none"))
    assert (run.path / "notes.txt").read_text() == "mine"


def test_a_finished_run_has_a_summary(config):
    run = open_run(config)
    assert not run.finished
    run.finish({"accuracy": 0.25})
    assert open_run(config).finished
    assert open_run(config).summary == {"accuracy": 0.25}


def test_checkpoints_are_listed_oldest_first_without_unfinished_ones(config):
    run = begun_run(config)
    for step in (100, 20, 3):
        checkpoint(run, step)
    (run.path / "checkpoints" / ".step-00000120.tmp").mkdir()
    assert [folder.name for folder in run.checkpoints()] == ["step-00000003", "step-00000020", "step-00000100"]


def test_metrics_of_steps_that_will_be_run_again_are_forgotten(config):
    run = open_run(config)
    for step in range(0, 10, 2):
        run.log({"step": step, "loss": step / 7})
    run.forget_metrics_from(6)
    assert run.metrics() == [{"step": step, "loss": step / 7} for step in (0, 2, 4)]


def test_a_last_line_that_a_kill_cut_off_is_ignored(config):
    run = open_run(config)
    run.log({"step": 0, "loss": 1.5})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert run.metrics() == read_metrics(run.path) == [{"step": 0, "loss": 1.5}]
    run.forget_metrics_from(1)
    run.log({"step": 1, "loss": 0.5})
    assert run.metrics() == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 0.5}]


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_only_the_main_process_writes(config):
    run = RunFolder(config, stage="some.stage", is_main=False)
    run.log({"step": 0})
    run.finish({})
    assert not run.path.exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; --output_dir needs a folder"):
        open_run(SomeConfig(output_dir=str(tmp_path / "file")))


def test_a_folder_that_another_process_writes_is_refused(config):
    run = open_run(config)
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a+'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    other = run.path.parent / "two"
    other.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(other / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="two is being written by another process"):
            lock_folder(other, patience=0.0)
        process.communicate("\n")
    lock_folder(other, patience=0.0)


def test_a_run_whose_input_was_made_anew_is_refused(config):
    RunFolder(config, stage="some.stage", inputs={"tokenizer": "first"}).log({"step": 0})
    RunFolder(config, stage="some.stage", inputs={"tokenizer": "first"})
    matters = r"runs/one holds another run \(tokenizer: first there, second now\): .* --resume none to start afresh"
    with pytest.raises(UserError, match=matters):
        RunFolder(config, stage="some.stage", inputs={"tokenizer": "second"})
    RunFolder(replace(config, resume="none"), stage="some.stage", inputs={"tokenizer": "second"})


def test_images_that_were_mended_before_a_checkpoint_saw_them_are_the_same_runs(config):
    def opened(images):
        return RunFolder(config, stage="some.stage", data={"images": images, "store": "x"}, may_be_mended=("images",))

    run = opened("with a broken one")
    run.log({"step": 0})
    again = opened("mended")
    assert not again.fresh
    again.begin()
    assert json.loads((run.path / "env.json").read_text())["inputs"]["images"] == "mended"
    checkpoint(again, 1)
    opened("mended")
    with pytest.raises(UserError, match=r"holds another run \(images: mended there, other now\)"):
        opened("other")


def test_a_first_try_that_was_refused_does_not_lock_its_folder(config):
    """What is written before a run begins does not count; what it was told may change then."""
    first = RunFolder(config, stage="some.stage", inputs={"tokenizer": "first"})
    first.begin()
    (first.path / "micro_batch.json").write_text("{}")
    (first.path / "checkpoints").mkdir()
    (first.path / "metrics.jsonl").write_text("")
    changed = replace(config, seed=config.seed + 1)
    second = RunFolder(changed, stage="some.stage", inputs={"tokenizer": "second"})
    second.begin()
    assert not (second.path / "micro_batch.json").exists()
    assert yaml.safe_load(second.config_file.read_text())["seed"] == config.seed + 1
    second.log({"step": 0})
    with pytest.raises(UserError, match=r"holds another run \(seed: 1 there, 0 now\)"):
        RunFolder(config, stage="some.stage", inputs={"tokenizer": "second"})


def test_starting_afresh_forgets_the_micro_batch_of_the_former_run(config):
    run = RunFolder(config, stage="some.stage")
    run.log({"step": 0})
    (run.path / "micro_batch.json").write_text('{"batch_size": 1, "accum_iter": 8}')
    RunFolder(config, stage="some.stage")
    assert (run.path / "micro_batch.json").exists()
    begun_run(replace(config, resume="none"))
    assert not (run.path / "micro_batch.json").exists()
