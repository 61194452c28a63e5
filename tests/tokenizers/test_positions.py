"""The fixed position table."""

import math

import pytest
import torch

from seitpp.tokenizers.positions import sincos_positions


def test_the_first_half_encodes_the_column_and_the_second_the_row():
    width, (rows, columns) = 12, (3, 5)
    table = sincos_positions(width, (rows, columns))
    assert table.shape == (15, 12)
    for row in range(rows):
        for column in range(columns):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (place / 3) for place in range(3)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert table[row * columns + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_table_that_spans_another_grid_keeps_the_middle_of_each_place_at_its_share_of_that_grid():
    table = sincos_positions(8, (2, 9), spanning=(4, 3))
    for row in range(2):
        for column in range(9):
            expected = []
            for coordinate in ((column + 0.5) / 9 * 3 - 0.5, (row + 0.5) / 2 * 4 - 0.5):
                angles = [coordinate, coordinate / 100]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert table[row * 9 + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("grid", [(1, 1), (3, 7), (14, 14), (49, 3)])
def test_a_table_that_spans_its_own_grid_is_the_plain_one_bit_for_bit(grid):
    assert torch.equal(sincos_positions(24, grid, spanning=grid), sincos_positions(24, grid))


def test_a_width_that_does_not_divide_by_four_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 10"):
        sincos_positions(10, (2, 3))
