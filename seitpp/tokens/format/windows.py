"""Where the rows of a segmentation store lie in their images: column `window`, seven numbers a row.

A row is a window of an image whose short side was resized. All windows of an image are in one shard, one after the
other, line by line: the first numbers rise, so that a pass from front to back has one image at a time in hand.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

FIELDS = ("image", "top", "left", "resized_height", "resized_width", "height", "width")
"""What the numbers of a row are, in their order."""
WINDOW_TYPE = pa.list_(pa.int32(), len(FIELDS))


@dataclass(frozen=True)
class Windows:
    """Places of some windows, by name.

    Attributes:
        values: (n, 7) int32, in the order of FIELDS.
    """

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | np.ndarray) -> "Windows":
        """Those of some rows."""
        return Windows(self.values[rows])

    @property
    def image(self) -> np.ndarray:
        """Number of the window's image among those that the store was made of, (n,); it rises from row to row.

        An image that was skipped leaves a gap, and a subset has the numbers of its store.
        """
        return self.values[:, 0]

    @property
    def top(self) -> np.ndarray:
        """First line of the window in the resized image, pixels, (n,)."""
        return self.values[:, 1]

    @property
    def left(self) -> np.ndarray:
        """First column of the window in the resized image, pixels, (n,)."""
        return self.values[:, 2]

    @property
    def resized(self) -> np.ndarray:
        """(height, width) of the resized image, which the windows lie in, (n, 2)."""
        return self.values[:, 3:5]

    @property
    def original(self) -> np.ndarray:
        """(height, width) of the image as it came, (n, 2)."""
        return self.values[:, 5:7]

    def image_bounds(self) -> np.ndarray:
        """First row of each image and, last, the number of rows, (images + 1,) int64; rows in the store's order."""
        if not len(self):
            return np.zeros(1, np.int64)
        return np.array([0, *(np.flatnonzero(np.diff(self.image)) + 1).tolist(), len(self)], np.int64)


def window_column(values: Any) -> Any:
    """The Arrow column of places, from (n, 7) integers."""
    values = np.ascontiguousarray(values, np.int32).reshape(-1, len(FIELDS))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=WINDOW_TYPE)


def window_values(column: Any) -> np.ndarray:
    """(n, 7) int32 of an Arrow column of places."""
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(FIELDS))


def wrong_window(values: np.ndarray, size: tuple[int, int]) -> int | None:
    """The first row that is no place of a window, None where all are.

    Args:
        values: (n, 7) integers.
        size: (height, width) of a window, pixels.
    """
    places, resized, wide = values[:, 1:3], values[:, 3:5], values.astype(np.int64)
    inside = (values[:, 0] >= 0) & (places >= 0).all(axis=1) & (values[:, 3:] >= 1).all(axis=1)
    # an image that is smaller than a window has one, which reaches over its edge
    ends = (wide[:, 1:3] + size <= np.maximum(resized, size)).all(axis=1)
    wrong = np.flatnonzero(~(inside & ends))
    return int(wrong[0]) if len(wrong) else None
