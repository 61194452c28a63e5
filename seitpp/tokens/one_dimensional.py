"""One-dimensional tokens (TiTok): a row of tokens each of which may speak of all of its image.

Their places are no places in the image, so what moves, cuts or mixes tokens by their places has no meaning there, and
is refused. A tokenizer says so by `geometry = "none"`, a store by `tokenizer.geometry` in its store.json.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from seitpp.runtime.errors import UserError

Geometry = Literal["grid", "none"]
"""grid: a token shows what lies at its place in the image; none: its place says nothing."""
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)


def geometry_of(tokenizer: Any) -> Geometry:
    """Of a Tokenizer or a TokenStore; a class that does not say has a grid."""
    return getattr(tokenizer, "geometry", "grid")


def described_tokenizer(tokenizer: Any) -> dict[str, str]:
    """What a store's manifest says of a Tokenizer: name, fingerprint, and geometry where there is none."""
    found = {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint}
    return found if geometry_of(tokenizer) == "grid" else {**found, "geometry": "none"}


def refuse_geometry(tokens: Any, source: object, wanted: Mapping[str, str]) -> None:
    """Refuse what has no meaning on one-dimensional tokens.

    Args:
        tokens: a Tokenizer or a TokenStore.
        source: where it is from, for the message.
        wanted: what is asked for of them that needs geometry, to what to do instead; empty: nothing.
    Raises: UserError naming all of it, if there is anything and the tokens have no geometry.
    """
    if wanted and geometry_of(tokens) == "none":
        names, advice = " and ".join(wanted), ", ".join(dict.fromkeys(wanted.values()))
        raise UserError(
            f"{source} is of one-dimensional tokens, whose places are no places in the image, so there is no meaning "
            f"in {names}: {advice}"
        )
