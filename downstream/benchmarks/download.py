"""Get sets from where their authors publish them, by torchvision; what is there already is not fetched again.

torchvision has classes for most; for the others, archives are named here with their checksums. Stanford Cars is no
longer at its authors' address, and iNaturalist is too large to fetch in passing (about 120 and 75 GB): by hand.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seitpp.downstream.benchmarks.checked import set_folder
from seitpp.downstream.benchmarks.layouts.known import LAYOUTS
from seitpp.downstream.benchmarks.sets import BenchmarkSet
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown

TORCHVISION = {
    "flowers": "Flowers102", "aircraft": "FGVCAircraft", "pets": "OxfordIIITPet", "food101": "Food101", "dtd": "DTD",
    "sun397": "SUN397", "caltech101": "Caltech101",
}  # fmt: skip
"""Layout to the class of torchvision.datasets that fetches it."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive to unpack.

    Attributes:
        url: where it is.
        sha256: of it.
        into: folder below that of all sets to unpack it in.
    """

    url: str
    sha256: str
    into: str = ""


ARCHIVES = {
    "cub": Archive(
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
    "sun397": Archive(
        url="https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
        sha256="e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9", into="SUN397",
    ),
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
}  # fmt: skip
"""Layout to an archive that torchvision has no class for, or leaves out."""


def download(wanted: Sequence[BenchmarkSet], data: str | Path) -> None:
    """Fetch what is missing of some sets and unpack it.

    Args:
        wanted: rows of the table.
        data: folder of all sets.
    Raises: UserError if torchvision is missing, a set can't be fetched so, or fetching it failed.
    """
    missing = [each for each in wanted if _is_missing(each, Path(data))]
    by_hand = [each for each in missing if each.layout not in TORCHVISION and each.layout not in ARCHIVES]
    if by_hand:
        raise UserError(f"{by_hand[0].name} can't be downloaded by this command: get it by hand, {by_hand[0].address}")
    for each in missing:
        datasets = _torchvision()
        print(f"{each.name}: downloading to {set_folder(each, Path(data))} ({each.address})", flush=True)
        try:
            if each.layout in TORCHVISION:
                getattr(datasets, TORCHVISION[each.layout])(str(data), download=True)
            if each.layout in ARCHIVES:
                _unpack(ARCHIVES[each.layout], Path(data), datasets.utils)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{each.name} could not be downloaded ({shown(error, 160)}): try again, or get it by hand, "
                f"{each.address}"
            ) from error


def _is_missing(each: BenchmarkSet, data: Path) -> bool:
    root = set_folder(each, data)
    return not root.is_dir() or bool(LAYOUTS[each.layout].missing(root))


def _torchvision() -> Any:
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise UserError(
            "--download needs its extra: pip install 'seitpp[download]'; or get the sets by hand"
        ) from error
    return datasets


def _unpack(archive: Archive, data: Path, utils: Any) -> None:
    file = data / archive.url.rsplit("/", 1)[1]
    utils.download_url(archive.url, str(data), file.name)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != archive.sha256:
        raise UserError(f"{file} is not what its authors published (SHA-256 {found[:12]}…): remove it and try again")
    utils.extract_archive(str(file), str(data / archive.into))
