"""Rows of a coded store: ids to bytes and back, by the compiled kernel where there is numba."""

import numpy as np
import torch

from seitpp.tokens.coding import rans
from seitpp.tokens.coding.tables import CodingTables
from seitpp.tokens.format.coded_rows import CodedRows

_ROWS_AT_ONCE = 1024


class RowCoder:
    """Codes and decodes rows by some tables.

    Args:
        tables: of the store.
        compiled: decode by the kernel; None: where numba is installed.

    Attributes:
        tables: as given.
        compiled: whether the kernel decodes.
    Raises: ImportError if the kernel is asked for and there is no numba.
    """

    def __init__(self, tables: CodingTables, *, compiled: bool | None = None) -> None:
        self.tables = tables
        self._kernel = None
        if compiled is not False:
            from seitpp.tokens.coding.kernel import Kernel

            try:
                self._kernel = Kernel(tables)
            except ImportError:
                if compiled:
                    raise

    @property
    def compiled(self) -> bool:
        """Whether the kernel decodes."""
        return self._kernel is not None

    def encode(self, ids: torch.Tensor) -> CodedRows:
        """Code rows.

        Args:
            ids: (b, h, w) integers on the CPU.
        Raises: ValueError if an id is none of the codebook, or the grid is another.
        """
        parts = ids.reshape(len(ids), -1).split(_ROWS_AT_ONCE)
        return CodedRows.joined([CodedRows(*rans.encode(part.numpy(), self.tables)) for part in parts])

    def decode(self, content: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode rows, see `rans.decode`.

        Args:
            content: (n,) uint8.
            starts: where the rows begin, (b,) int64.
            stops: where they end, (b,) int64.
        Returns: ((b, T) uint16 ids, (b,) bool: whether each row came out even).
        """
        if self._kernel is not None:
            return self._kernel.decode(content, starts, stops)
        return rans.decode(content, starts, stops, self.tables)
