"""Length and learning rate of a training."""

import math

import pytest

from seitpp.runtime.errors import UserError
from seitpp.training.config import TrainConfig
from seitpp.training.schedule import make_schedule


def schedule(samples=1000, world_size=1, **fields):
    return make_schedule(TrainConfig(output_dir="x", **fields), samples=samples, world_size=world_size)


def test_the_learning_rate_is_this_table():
    rates = schedule(batch_size=10, steps=10, warmup_steps=4, lr=0.8, min_lr=0.1)
    table = [
        0.2, 0.4, 0.6, 0.8,  # linear warm-up whose first step is not zero
        0.8,  # the top of the cosine
        0.7531088913,  # 0.1 + 0.35 (1 + cos 30°)
        0.625,  # 60°
        0.45,  # 90°: halfway
        0.275,  # 120°
        0.1468911087,  # 150°
        0.1, 0.1,  # after the end
    ]  # fmt: skip
    assert [rates.lr_at(step) for step in range(12)] == pytest.approx(table, abs=1e-9)


@pytest.mark.parametrize(
    ("power", "table"),
    [(1.0, [0.4, 0.8, 0.8, 0.625, 0.45, 0.275, 0.1]), (2.0, [0.4, 0.8, 0.8, 0.49375, 0.275, 0.14375, 0.1])],
)
def test_the_polynomial_decay_is_this_table(power, table):
    """0.1 + 0.7 (1 - t / 4)^power after two steps of warm-up."""
    rates = schedule(batch_size=10, steps=6, warmup_steps=2, lr=0.8, min_lr=0.1, lr_decay="poly", poly_power=power)
    assert [rates.lr_at(step) for step in range(7)] == pytest.approx(table, abs=1e-9)


def test_without_warm_up_the_first_step_has_the_whole_rate():
    rates = schedule(batch_size=10, steps=4, lr=0.8)
    expected = [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]
    assert [rates.lr_at(step) for step in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scaling", "table"),
    [("linear", {64: 0.25, 256: 1.0, 1024: 4.0, 4096: 16.0}), ("sqrt", {64: 1.0, 256: 2.0, 1024: 4.0, 4096: 8.0})],
)
def test_the_peak_rate_by_effective_batch_is_this_table(scaling, table):
    for batch, factor in table.items():
        shares = {"batch_size": batch // 8, "accum_iter": 2, "world_size": 4, "samples": 5000}
        assert schedule(**shares, blr=1e-3, lr_scaling=scaling).lr == pytest.approx(1e-3 * factor), batch


def test_the_base_rate_is_for_an_effective_batch_of_256():
    assert schedule(batch_size=16, accum_iter=2, world_size=4, blr=0.3).lr == pytest.approx(0.3 * 128 / 256)
    assert schedule(batch_size=16, accum_iter=2, world_size=4, blr=0.3, lr=0.01).lr == 0.01


def test_epochs_count_effective_batches_without_the_incomplete_one():
    rates = schedule(1000, batch_size=30, accum_iter=2, world_size=3, epochs=7, warmup_epochs=1.5)
    assert rates.steps_per_epoch == 5  # 1000 // 180
    assert rates.total_steps == 35
    assert rates.warmup_steps == 8  # round(7.5)


def test_steps_count_more_than_epochs():
    rates = schedule(batch_size=10, epochs=7, steps=33, warmup_epochs=3, warmup_steps=5)
    assert (rates.total_steps, rates.warmup_steps) == (33, 5)


def test_a_part_of_an_epoch_is_at_least_one_step():
    assert schedule(100, batch_size=10, epochs=0.01).total_steps == 1


def test_a_set_smaller_than_a_batch_is_refused():
    with pytest.raises(UserError, match=r"7 samples, fewer than one effective batch of 8.*lower --batch_size"):
        schedule(7, batch_size=2, accum_iter=2, world_size=2)


def test_a_warm_up_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="warm-up of 5 steps does not fit into a training of 5 steps"):
        schedule(batch_size=10, steps=5, warmup_steps=5)


def test_a_last_rate_above_the_peak_is_refused():
    with pytest.raises(UserError, match=r"min_lr = 0\.1 is above the peak of 0\.05 that blr makes"):
        schedule(256, batch_size=128, blr=0.1, min_lr=0.1)
    assert schedule(256, batch_size=128, blr=0.1, min_lr=0.05).lr_at(0) == 0.05


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0), ("accum_iter", 0), ("epochs", 0), ("steps", 0), ("lr", -1.0), ("blr", 0.0),
        ("log_every", 0), ("save_every", 0), ("keep_checkpoints", 0), ("warmup_steps", -1), ("warmup_epochs", -0.5),
        ("clip_grad", 0.0), ("clip_grad", -1.0), ("seed", -1),
    ],
)  # fmt: skip
def test_impossible_trainings_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"TrainConfig: (lr|{field}) = "):
        TrainConfig(output_dir="x", **{field: value})
