"""What a dry run measures, and that it is exit code 0."""

import pytest
import torch

from seitpp.runtime.errors import Rehearsed
from seitpp.runtime.files import read_json
from seitpp.training.config import TrainConfig
from seitpp.training.rehearsal import TIMED, WARM_UP, sizes_of
from toy_training import attempt, main, toy


def test_a_dry_run_ends_with_exit_code_0_and_leaves_no_folder(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        attempt(["--output_dir", str(tmp_path / "run"), "--steps", "12", "--dry_run", "true"])
    assert stopped.value.code == 0
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "nothing was written; without --dry_run the training begins"
    assert said.err == ""


def test_it_takes_a_few_steps_and_none_beyond_the_last(tmp_path):
    taken = []
    with pytest.raises(Rehearsed):
        main(toy(tmp_path / "run", dry_run=True), before_batch=lambda step, micro: taken.append(step))
    assert taken == list(range(WARM_UP + TIMED))
    taken.clear()
    with pytest.raises(Rehearsed):
        main(toy(tmp_path / "run", dry_run=True, steps=3), before_batch=lambda step, micro: taken.append(step))
    assert taken == [0, 1, 2, 2, 2, 2]


def test_of_a_run_that_was_stopped_it_tells_what_is_left_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, capsys):
    main(toy(tmp_path / "run", steps=12))
    took = read_json(tmp_path / "run" / "summary.json").pop("took")
    assert took.keys() == {"seconds"}
    (tmp_path / "run" / "summary.json").unlink()
    for folder in sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]:
        folder.rename(tmp_path / "put aside")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*") if path.is_file())
    capsys.readouterr()
    with pytest.raises(Rehearsed):
        main(toy(tmp_path / "run", steps=12, dry_run=True))
    assert "  4 steps that are left take about" in capsys.readouterr().out
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert after == before
    main(toy(tmp_path / "run", steps=12))
    assert read_json(tmp_path / "run" / "summary.json")["done"] is True


def test_sizes_are_weights_two_averages_of_what_is_trained_and_the_copies_that_are_kept(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))  # 20 + 12 parameters of 4 bytes
    model[0].requires_grad_(False)
    config = TrainConfig(output_dir=str(tmp_path), keep_checkpoints=2)
    sizes = sizes_of(model, config, best=False)
    assert (sizes.weights, sizes.state, sizes.copies, sizes.checkpoints) == (128, 128 + 96, 1, 3)
    assert sizes.total == 3 * 224 + 128
    averaged = TrainConfig(output_dir=str(tmp_path), keep_checkpoints=2, ema_decay=0.9)
    sizes = sizes_of(model, averaged, best=True)
    assert (sizes.state, sizes.copies, sizes.checkpoints) == (2 * 128 + 96, 3, 4)
