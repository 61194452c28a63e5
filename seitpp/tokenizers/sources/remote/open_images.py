"""Open images behind URLs: class folders of a bucket, or tar files of a bucket or web server."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from seitpp.runtime.errors import UserError
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import is_hidden
from seitpp.tokenizers.sources.remote.addresses import addresses_of, is_web, path_of, protocol_of, shown_url
from seitpp.tokenizers.sources.remote.folder import RemoteFolder, list_remote_folder, open_remote_folder
from seitpp.tokenizers.sources.remote.listing import FolderListing, Listing, TarListing, read_listing
from seitpp.tokenizers.sources.remote.place import Found, Place
from seitpp.tokenizers.sources.remote.tar import remote_tars
from seitpp.tokenizers.sources.tars.file import is_tar_name
from seitpp.tokenizers.sources.tars.images import TarImages, open_tars

_AT_ONCE = 16
_MANY = 8
_WILD = "*?["


def open_remote(
    spec: str, classes: Sequence[str] | None = None, *, kept: bytes | None = None, check: bool = True
) -> tuple[RemoteFolder | TarImages, Listing]:
    """Open images behind URLs.

    Args:
        spec: `s3://bucket/train`, a folder of class folders or of tars; tars: one, several with commas or
            {000..012} between them, or with wildcards in a bucket.
        classes: class names of another store whose indices are to be kept; None: those found.
        kept: content of a listing that was kept, which is used if it is of the same; None: there is none.
        check: whether tars of a kept listing are asked for their sizes and versions: others are listed anew.
    Returns: an ImageSource, and what was listed for it.
    Raises: UserError in one line where they can't be opened.
    """
    urls = addresses_of(spec)
    if len({"web" if is_web(url) else protocol_of(url) for url in urls}) > 1:
        raise UserError(f"{shown_url(spec)}: name tars of one kind of place at a time, such as s3:// alone")
    if any(is_web(url) and not is_tar_name(path_of(url)) for url in urls):
        raise UserError(f"{shown_url(spec)}: a web server lists no images: name .tar files, such as …/{{000..012}}.tar")
    place, listing = Place(urls[0]), read_listing(kept, spec)
    if listing is None or (check and isinstance(listing, TarListing) and not _is_still(place, listing)):
        listing = _list(place, urls)
    if isinstance(listing, FolderListing):
        return open_remote_folder(place, urls[0].rstrip("/"), listing, classes), listing
    return open_tars(remote_tars(place, listing.tars), classes, listing.left_out, listing.indexes), listing


def _is_still(place: Place, listing: TarListing) -> bool:
    """Whether tars have the sizes and versions that they were listed with."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(place.find, [each.url for each in listing.tars])) == listing.tars


def _list(place: Place, urls: list[str]) -> Listing:
    url = urls[0].rstrip("/")
    if len(urls) > 1 or is_web(url) or is_tar_name(url) or any(sign in url for sign in _WILD):
        return _index(place, _found(place, urls))
    inside = [each for each in place.entries(url) if not is_hidden(_name(each))]
    tars = sorted((each for each in inside if not each.is_folder and is_tar_name(each.url)), key=lambda each: each.url)
    if tars and any(each.is_folder for each in inside):
        raise UserError(f"{url} holds tar files and folders: name the tars ({url}/*.tar), or move them elsewhere")
    if not tars:
        return list_remote_folder(place, url)
    return _index(place, tars, [LeftOut(_name(each), "beside tar files") for each in inside if each not in tars])


def _index(place: Place, found: list[Found], beside: Sequence[LeftOut] = ()) -> TarListing:
    """Tars with what they hold, from their headers, many tars at a time."""
    indexes = []
    with ThreadPoolExecutor(_AT_ONCE) as threads, Progress(len(found), "list", enabled=len(found) > _MANY) as progress:
        for index in threads.map(lambda tar: tar.index(), remote_tars(place, found)):
            indexes.append(index)
            progress.update(len(indexes))
    return TarListing(found, indexes, list(beside))


def _name(found: Found) -> str:
    return found.url.rstrip("/").rsplit("/", 1)[-1]


def _found(place: Place, urls: Sequence[str]) -> list[Found]:
    """Tars of addresses and patterns, sorted, none twice."""

    def find(url: str) -> list[Found]:
        if is_web(url) or not any(sign in url for sign in _WILD):
            return [place.find(url)]
        found = place.glob(url)
        if not found:
            raise UserError(f"no file fits {url}: check --images")
        return found

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = {each.url: each for some in threads.map(find, urls) for each in some}
    return [found[url] for url in sorted(found)]
