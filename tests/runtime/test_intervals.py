"""Intervals of accuracies: numbers known from elsewhere, and what is said of them."""

import math

import pytest
from scipy.stats import binomtest

from seitpp.runtime.intervals import said_accuracy, standard_error, wilson_interval


@pytest.mark.parametrize(("right", "images"), [(0, 7), (3, 7), (7, 7), (258, 493), (40_000, 50_000)])
def test_the_interval_is_wilson_s(right, images):
    reference = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson_interval(right / images, images) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_it_holds_where_all_or_nothing_is_right():
    assert wilson_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)  # 10 / (10 + 1.96²)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert all(math.isnan(each) for each in (*wilson_interval(0.5, 0), standard_error(0.5, 0)))


def test_a_standard_error_is_that_of_a_fraction():
    assert standard_error(0.6, 50) == pytest.approx((0.6 * 0.4 / 50) ** 0.5)


def test_an_accuracy_is_said_with_its_test_images_and_the_deviation_or_the_interval():
    assert said_accuracy([0.5], 2_500) == "0.500 on 2,500 test images (95 %: 0.480 to 0.520)"
    assert said_accuracy([0.5, 0.6, 0.7], 50) == "0.600 ± 0.100 on 50 test images (3 seeds)"
