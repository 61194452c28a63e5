"""Ids in factors: an id of very many codes as several small numbers, the lowest bits first.

A softmax over 2^18 codes for each of some thousand tokens takes gigabytes, one over 2^6 and one over 2^12 megabytes.
The numbers are taken as independent, given what a model has seen. Source: the asymmetric token factorisation of
Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410), of 6 and 12 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from seitpp.runtime.errors import UserError
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE


@dataclass(frozen=True)
class CodeFactors:
    """How ids are split. `factors_of` makes it.

    Attributes:
        codebook_size: K.
        sizes: how many values each number has; one, (K,), where ids are not split.
    """

    codebook_size: int
    sizes: tuple[int, ...]

    @property
    def split(self) -> bool:
        """Whether there is more than one number."""
        return len(self.sizes) > 1

    @property
    def total(self) -> int:
        """Values of all numbers together: rows of a table that has those of each, one after the other."""
        return sum(self.sizes)

    def of(self, ids: Tensor) -> list[Tensor]:
        """The numbers of ids, each of the shape of `ids`."""
        numbers = []
        for size in self.sizes[:-1]:
            numbers.append(ids % size)
            ids = ids // size
        return [*numbers, ids]

    def require_whole(self, what: str) -> None:
        """Refuse to write a model under published names if it splits ids, which no published one does.

        Args:
            what: the model, for the message.
        Raises: UserError.
        """
        if self.split:
            raise UserError(
                f"{what} splits its ids into {len(self.sizes)} numbers, which the published one does not: it can't be "
                "exported as one"
            )

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of a table of `total` rows: (…) to (…, factors)."""
        starts = accumulate(self.sizes[:-1], initial=0)
        return torch.stack([number + start for number, start in zip(self.of(ids), starts, strict=True)], dim=-1)

    def parts(self, values: Tensor, dim: int = -1) -> tuple[Tensor, ...]:
        """What belongs to each number of something that has `total` along a dimension."""
        return values.split(self.sizes, dim=dim) if self.split else (values,)

    def ids(self, numbers: Sequence[Tensor]) -> Tensor:
        """Ids of their numbers. Numbers beyond the last code, which no training shows, become the last."""
        if not self.split:
            return numbers[0]
        ids = numbers[-1]
        for number, size in zip(reversed(numbers[:-1]), reversed(self.sizes[:-1]), strict=True):
            ids = ids * size + number
        return ids.clamp(max=self.codebook_size - 1)

    def likeliest(self, logits: Tensor, dim: int = -1) -> Tensor:
        """Ids of the likeliest numbers, of logits that have `total` along a dimension, which goes."""
        return self.ids([part.argmax(dim=dim) for part in self.parts(logits, dim)])


def whole_ids(codebook_size: int | None) -> tuple[int, ...] | None:
    """The `code_factors` of a published model, which never splits ids; None where nobody would."""
    if codebook_size is None or codebook_size <= MOST_IN_ONE_TABLE:
        return None
    return ((codebook_size - 1).bit_length(),)


def factors_of(codebook_size: int, bits: Sequence[int] | None = None) -> CodeFactors:
    """How ids of so many codes are split.

    Args:
        codebook_size: K.
        bits: of each number, the lowest first; one number: ids are not split. None: up to 65,536 codes they are not;
            of more there are two, of a third of the bits and of the rest.
    Raises: UserError if these are not the bits of K.
    """
    whole = (codebook_size - 1).bit_length()
    if bits is None:
        bits = (whole,) if codebook_size <= MOST_IN_ONE_TABLE else (whole // 3, whole - whole // 3)
    if sum(bits) != whole:
        raise UserError(
            f"code_factors = {list(bits)} are {sum(bits)} bits, but ids of {codebook_size:,} codes have {whole}: leave "
            "it out, or make the sum that"
        )
    below = [2**each for each in bits[:-1]]
    return CodeFactors(codebook_size, (*below, -(-codebook_size // 2 ** sum(bits[:-1]))))
