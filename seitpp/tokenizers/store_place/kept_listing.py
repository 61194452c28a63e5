"""Images behind a URL of a tokenising job: listed once, and the list kept with the job's working files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seitpp.tokenizers.sources.remote.listing import FolderListing, Listing, write_listing
from seitpp.tokenizers.sources.remote.open_images import open_remote
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.store_place.place import StorePlace

if TYPE_CHECKING:
    from seitpp.tokenizers.tokenize import TokenizeConfig

LISTING_FILE = "listing.arrow"


def open_listed(
    config: "TokenizeConfig", classes: Sequence[str] | None, place: StorePlace, *, listed: bool
) -> tuple[ImageSource, Listing]:
    """Open images by the list that a job has kept, or list them.

    Args:
        config: of the job.
        classes: class names of another store whose indices are to be kept; None: those found.
        place: of the store.
        listed: whether another process of the job has listed them a moment ago.
    Returns: an ImageSource, and the list.
    """
    kept = None if config.resume == "none" and not listed else place.read(LISTING_FILE)
    return open_remote(config.images, classes, kept=kept, check=not listed)


def keep_listing(config: "TokenizeConfig", place: StorePlace, listing: Listing) -> None:
    """Keep what was listed, for what goes on from here."""
    write_listing(place.folder / LISTING_FILE, config.images, listing)
    place.publish(LISTING_FILE)


def drop_listing(place: StorePlace, listing: Listing) -> None:
    """The store is made: of a folder, images that were added or changed are to be noticed by the next command.

    Indexes of tars stay: they are checked against the tars whenever they are used, and cost a pass over all headers.
    """
    if isinstance(listing, FolderListing):
        place.remove(LISTING_FILE)
