"""The fixed position table."""

import math

import pytest

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


def test_a_width_that_does_not_divide_by_four_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 10"):
        sincos_positions(10, (2, 3))
