"""A token store as a torch Dataset, for training loops of one's own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore, open_store

Item = tuple[Any, int, str]


class TokenDataset(Dataset[Item]):
    """Map-style: item i is (ids (h, w) int64, label, key) of row i; the label is -1 where unknown.

        loader = DataLoader(TokenDataset("stores/train"), batch_size=256, shuffle=True, num_workers=2)

    A batch is one indexing call, however many rows it has. Worker processes open the store themselves; nothing of it is
    copied to them. `seitpp.TokenLoader` needs no workers and is faster.

    Args:
        store: a TokenStore, or the folder or URL of one.
        labels: (rows,) labels instead of the store's own; None: the store's.
        transform: function of the ids of a row, (h, w) int64.
    Raises: UserError if `labels` has another length than the store.
    """

    def __init__(
        self,
        store: TokenStore | str | Path,
        *,
        labels: Sequence[int] | np.ndarray | None = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        self._store: TokenStore | None = store if isinstance(store, TokenStore) else open_store(store)
        self._process = os.getpid()
        self.spec = str(self._store.folder)
        self.verify_shards = self._store.verify_shards
        self.length = len(self._store)
        self.labels = None if labels is None else np.asarray(labels)
        self.transform = transform
        if self.labels is not None and self.labels.shape != (self.length,):
            raise UserError(f"labels has the shape {self.labels.shape}; {self.spec} has {self.length} rows")

    @property
    def store(self) -> TokenStore:
        """The store, opened again in a process that got this object from another, forked or not."""
        if self._store is None or self._process != os.getpid():
            self._store, self._process = open_store(self.spec, verify_shards=self.verify_shards), os.getpid()
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        """(ids, label, key) of a row; negative ones count from the end.

        Raises: IndexError if there is no such row.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Several rows in one indexing call; DataLoader asks for its batches in this way."""
        rows = np.asarray(indices, np.int64)
        rows = np.where(rows < 0, rows + self.length, rows)
        ids = self.store.ids(rows)
        labels = self.store.labels_at(rows) if self.labels is None else self.labels[rows]
        keys = [self.store.keys(range(row, row + 1))[0] for row in rows.tolist()]
        parts = ids if self.transform is None else [self.transform(each) for each in ids]
        return list(zip(parts, labels.tolist(), keys, strict=True))
