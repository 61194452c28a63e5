"""Mean corruption error and relative mCE: known answers, and only where all of ImageNet-C was measured."""

import pytest

from seitpp.downstream.corruption_error import (
    alexnet_errors,
    mean_accuracy,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from seitpp.downstream.imagenet.imagenet_c import CORRUPTIONS
from seitpp.downstream.robustness_table import corruption_results, wide_table
from seitpp.runtime.results import Result

PUBLISHED = [88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7]
"""AlexNet's errors in %, in the order of the paper's table: noise, blur, weather, digital."""


def same_everywhere(error):
    return {name: [error] * 5 for name in CORRUPTIONS}


def test_alexnets_errors_are_the_published_ones():
    errors = alexnet_errors()
    assert [100 * errors[name] for name in CORRUPTIONS] == pytest.approx(PUBLISHED)
    assert errors["clean"] == 0.435
    assert CORRUPTIONS[0] == "gaussian_noise"
    assert CORRUPTIONS[-1] == "jpeg_compression"


def test_alexnet_itself_has_an_mce_and_a_relative_mce_of_one():
    errors = {name: [alexnet_errors()[name] + more for more in (-0.1, -0.05, 0, 0.05, 0.1)] for name in CORRUPTIONS}
    assert mean_corruption_error(errors) == pytest.approx(1)
    assert relative_mean_corruption_error(errors, clean=0.435) == pytest.approx(1)


def test_one_corruption_weighs_a_fifteenth_whatever_its_severities():
    """By hand: all errors 0 but jpeg's, which are 0.1, 0.2, 0.3, 0.4, 0.5; their sum is 1.5, AlexNet's 5 x 0.607."""
    errors = same_everywhere(0.0) | {"jpeg_compression": [0.1, 0.2, 0.3, 0.4, 0.5]}
    assert mean_corruption_error(errors) == pytest.approx(1.5 / 3.035 / 15)
    assert mean_accuracy(errors) == pytest.approx(1 - 0.3 / 15)


def test_relative_mce_counts_what_a_corruption_adds_to_the_clean_error():
    """By hand: brightness alone adds errors, 0.3 to each clean 0.2; AlexNet's it raises from 0.435 to 0.565."""
    errors = same_everywhere(0.2) | {"brightness": [0.5] * 5}
    assert relative_mean_corruption_error(errors, clean=0.2) == pytest.approx(0.3 / 0.13 / 15)
    assert relative_mean_corruption_error(same_everywhere(0.2), clean=0.2) == pytest.approx(0)


def test_corruptions_beyond_the_15_change_nothing():
    more = same_everywhere(0.3) | {"spatter": [0.9] * 5}
    assert mean_corruption_error(more) == mean_corruption_error(same_everywhere(0.3))
    assert mean_accuracy(more) == pytest.approx(0.7)
    assert mean_accuracy({"spatter": [0.9, 0.7]}) == pytest.approx(0.2)


@pytest.mark.parametrize("part", [{"fog": [0.5] * 4}, {"fog": []}])
def test_an_incomplete_measurement_has_no_mce(part):
    with pytest.raises(ValueError, match="15 corruptions at 5 severities"):
        mean_corruption_error(same_everywhere(0.5) | part)


# Rows and the wide table


def row(shift, severity, value, *, seed=0, metric="accuracy", init="mtm"):
    return Result(
        dataset="i1k", shift=shift, severity=severity, metric=metric, value=value, seed=seed, init=init,
        protocol="finetune", train_images=9, test_images=50,
    )  # fmt: skip


def measured(prefix, accuracy, names=CORRUPTIONS, **fields):
    corrupted = [row(prefix + name, level, accuracy, **fields) for name in names for level in range(1, 6)]
    return [row("", None, 0.8, **fields), *corrupted]


def found(results, **how):
    return {(each.seed, each.shift, each.metric): each.value for each in corruption_results(results, **how)}


def test_what_is_given_out_and_what_was_generated_are_told_apart():
    given = found(measured("imagenet-c:", 0.5) + measured("imagenet-c:", 0.6, seed=1), of_imagenet=True)
    assert {key[1] for key in given} == {"imagenet-c"}
    assert given[0, "imagenet-c", "mean_accuracy"] == pytest.approx(0.5)
    assert given[0, "imagenet-c", "mce"] == pytest.approx(mean_corruption_error(same_everywhere(0.5)))
    assert given[1, "imagenet-c", "mce"] == pytest.approx(mean_corruption_error(same_everywhere(0.4)))
    relative = relative_mean_corruption_error(same_everywhere(0.5), clean=0.2)
    assert given[0, "imagenet-c", "relative_mce"] == pytest.approx(relative)
    assert {key[1] for key in found(measured("", 0.5), of_imagenet=True)} == {"imagenet-c-generated"}


def test_only_the_plain_mean_is_given_of_a_part_and_of_other_classes():
    some = found(measured("", 0.5, CORRUPTIONS[:3]), of_imagenet=True)
    assert some == {(0, "imagenet-c-generated", "mean_accuracy"): pytest.approx(0.5)}
    assert set(found(measured("", 0.5), of_imagenet=False)) == {(0, "imagenet-c-generated", "mean_accuracy")}
    assert found([row("", None, 0.8), row("sketch", None, 0.1)], of_imagenet=True) == {}


def test_the_wide_table_has_a_row_a_classifier_and_a_column_a_set():
    results = [
        row("", None, 0.8), row("", None, 1.5, metric="cross_entropy"), row("fog", 3, 0.4), row("", None, 0.7, seed=1),
        row("imagenet-c", None, 0.9, metric="mce"), row("", None, 0.6, init="scratch"),
    ]  # fmt: skip
    table = wide_table(results)
    assert list(table.columns[-3:]) == ["clean", "fog-3", "imagenet-c mce"]
    assert table["fog-3"][0] == 0.4
    assert table[["init", "seed", "clean"]].values.tolist() == [["mtm", 0, 0.8], ["mtm", 1, 0.7], ["scratch", 0, 0.6]]
    assert table["fog-3"].isna().tolist() == [False, True, True]
