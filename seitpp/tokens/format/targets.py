"""What rows are annotated with beside their one label: several labels a row, label maps, and places of windows.

As in a shard: `labels` is list<int32> (numbers of classes, in any order), `masks` is large_binary (a PNG a row, see
`seitpp.tokens.format.masks`). In both, null means that nobody annotated the row; an empty list, that no class applies.
`windows` says where a row lies in its image (see `seitpp.tokens.format.windows`) and is never null. `truths` has the
label map of a window's whole image at the size that it came in, a PNG too: in the image's first row, else null.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported.

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seitpp.tokens.format.masks import decode_mask, encode_mask
from seitpp.tokens.format.windows import WINDOW_TYPE, window_column, window_values

LABELS_TYPE, MASK_TYPE = pa.list_(pa.int32()), pa.large_binary()
TARGET_COLUMNS = {"labels": "labels", "mask": "masks", "window": "windows", "truth": "truths"}
"""{name of a column in a shard: the field of Targets}"""
TARGET_TYPES = {"labels": LABELS_TYPE, "mask": MASK_TYPE, "window": WINDOW_TYPE, "truth": MASK_TYPE}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets of some rows, as they are stored.

    Attributes:
        labels: list<int32>; None where the store has no such column.
        masks: large_binary, PNGs; None where the store has no such column.
        windows: fixed-size list<int32>[7]; None where the store has no such column.
        truths: large_binary, PNGs; None where the store has no such column.
    """

    labels: Any = None
    masks: Any = None
    windows: Any = None
    truths: Any = None

    @classmethod
    def of(
        cls,
        *,
        labels: Iterable[Sequence[int] | None] | None = None,
        masks: Iterable[np.ndarray | None] | None = None,
        windows: Any = None,
        truths: Iterable[np.ndarray | None] | None = None,
    ) -> "Targets":
        """Encode targets.

        Args:
            labels: the classes of each row; None: nobody annotated it. None for all: no such column.
            masks: (H, W) uint8 or uint16 of each row, sizes may differ; None as above.
            windows: (rows, 7) integers in the order of `format.windows.FIELDS`; None: no such column.
            truths: as masks.
        Raises: ValueError if a mask is of another shape or type.
        """
        lists = None if labels is None else [None if each is None else np.asarray(each, np.int32) for each in labels]
        images, whole = (
            None if maps is None else [None if each is None else encode_mask(each) for each in maps]
            for maps in (masks, truths)
        )
        return cls(
            labels=None if lists is None else pa.array(lists, LABELS_TYPE),
            masks=None if images is None else pa.array(images, MASK_TYPE),
            windows=None if windows is None else window_column(windows),
            truths=None if whole is None else pa.array(whole, MASK_TYPE),
        )

    @classmethod
    def joined(cls, parts: Sequence["Targets"]) -> "Targets":
        """Those of several blocks of rows, one after the other; all have the same columns."""
        columns = {name: [getattr(part, name) for part in parts] for name in TARGET_COLUMNS.values()}
        return cls(**{
            name: None if column[0] is None else pa.concat_arrays(column) for name, column in columns.items()
        })  # fmt: skip

    @classmethod
    def none_of(cls, columns: Iterable[str]) -> "Targets":
        """Targets of no row, with those of the columns of a shard that are targets."""
        return cls(
            **{TARGET_COLUMNS[name]: pa.array([], TARGET_TYPES[name]) for name in columns if name in TARGET_COLUMNS}
        )

    @property
    def columns(self) -> dict[str, Any]:
        """{name of the column in a shard: its values}, of those that there are."""
        found = {name: getattr(self, field) for name, field in TARGET_COLUMNS.items()}
        return {name: column for name, column in found.items() if column is not None}

    def __getitem__(self, rows: slice | np.ndarray) -> "Targets":
        """Those of some rows, in the order asked for."""

        def part(column: Any) -> Any:
            return column[rows] if isinstance(rows, slice) else column.take(pa.array(rows))

        return self._each(part)

    def label_lists(self) -> list[np.ndarray | None]:
        """Classes of each row, int32; None where nobody annotated it."""
        return [None if each is None else np.array(each, np.int32) for each in self.labels.to_pylist()]

    def maps(self) -> list[np.ndarray | None]:
        """The label map of each row, (H, W) uint8 or uint16; None where nobody annotated it.

        Raises: ValueError if one is broken.
        """
        return _decoded(self.masks)

    def whole_maps(self) -> list[np.ndarray | None]:
        """The label map of each row's whole image, where the row is the image's first; else None.

        Raises: ValueError if one is broken.
        """
        return _decoded(self.truths)

    def places(self) -> np.ndarray:
        """Where each row lies in its image, (rows, 7) int32."""
        return window_values(self.windows)

    def renumbered(self, numbers: np.ndarray) -> "Targets":
        """The same with classes numbered anew.

        Args:
            numbers: new number of each class, (classes,) integers; -1: it is left out of every row's list.
        """
        if self.labels is None:
            return self
        lengths = pc.fill_null(pc.list_value_length(self.labels), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        values = np.asarray(numbers, np.int32)[self.labels.flatten().to_numpy(zero_copy_only=False)]
        kept = values >= 0
        offsets = np.cumsum([0, *np.bincount(rows[kept], minlength=len(lengths))]).astype(np.int32)
        labels = pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(values[kept], pa.int32()), mask=self.labels.is_null()
        )
        return replace(self, labels=labels)

    def _each(self, change: Callable[[Any], Any]) -> "Targets":
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Targets(**{name: None if each is None else change(each) for name, each in columns.items()})


def _decoded(column: Any) -> list[np.ndarray | None]:
    return [decode_mask(each.as_py()) if each.is_valid else None for each in column]


def first_labels(lists: Any) -> np.ndarray:
    """The first label of each row, (rows,) int32, -1 where there is none; `lists` is list<int32>."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    first = np.full(len(lengths), -1, np.int32)
    starts = np.cumsum([0, *lengths])[:-1]
    first[lengths > 0] = lists.flatten().to_numpy(zero_copy_only=False)[starts[lengths > 0]]
    return first


def only_labels(lists: Any) -> np.ndarray:
    """The label of each row that has just one, (rows,) int32, else -1: `label` where nothing else says it."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.where(lengths == 1, first_labels(lists), np.int32(-1)).astype(np.int32)
