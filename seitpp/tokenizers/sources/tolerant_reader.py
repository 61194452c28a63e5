"""Read images for a training, which goes on without the few that can't be decoded."""

from typing import TYPE_CHECKING

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import BrokenImage

if TYPE_CHECKING:
    from seitpp.tokenizers.sources.source import ImageSource


class TolerantReader:
    """Reads images of one size, and remembers those that it could not read. Many threads may use it.

    Args:
        images: an ImageSource.
        size: (height, width).
        resize: what is done with images of another shape.
        max_skipped: fraction of the images that may fail; None: none may.
    """

    def __init__(
        self,
        images: "ImageSource",
        size: tuple[int, int],
        resize: Resize = "crop",
        *,
        max_skipped: float | None = None,
    ):
        self.images = images
        self.size = size
        self.resize: Resize = resize
        self.max_skipped = max_skipped
        self.reasons: dict[int, str] = {}

    @property
    def left_out(self) -> list[LeftOut]:
        """What the source leaves out, and the images that this process could not read so far."""
        broken = [LeftOut(self.images.keys[row], "not decodable", self.reasons[row]) for row in sorted(self.reasons)]
        return [*self.images.left_out, *broken]

    def read(self, row: int) -> np.ndarray | None:
        """Pixels of one image, (3, height, width) uint8; None where it can't be decoded.

        Raises: UserError that names it where too many can't.
        """
        if row in self.reasons:
            return None
        try:
            return self.images.read(row, self.size, self.resize)
        except BrokenImage as error:
            reason = self.reasons[row] = str(error)
        except MemoryError as error:  # of the image or of the machine
            raise UserError(f"{self.images.where(row)} needs more memory than there is: make it smaller") from error
        if len(self.reasons) <= (self.max_skipped or 0) * len(self.images):
            return None
        further = f", as {len(self.reasons) - 1} before it" if len(self.reasons) > 1 else ""
        advice = "" if self.max_skipped is None else ", or raise --max_skipped"
        raise UserError(f"{self.images.where(row)} can't be decoded ({reason}){further}: remove or mend it{advice}")

    def read_one_of(self, rows: np.ndarray, place: int) -> tuple[int, np.ndarray]:
        """(row, pixels) of the first of `rows` from `place` on, around its end, that can be decoded.

        Which one it is depends on the images alone: a training that is resumed sees the same.
        """
        for further in range(len(rows)):
            row = int(rows[(place + further) % len(rows)])
            if (pixels := self.read(row)) is not None:
                return row, pixels
        raise UserError(f"{self.images.where(int(rows[0]))} and the others can't be decoded: mend them")
