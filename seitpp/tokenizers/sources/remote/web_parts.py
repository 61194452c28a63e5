"""A part of a file of a web server: asked for by its bytes, and only taken if the answer is that part."""

import re
from typing import Any

from seitpp.runtime.errors import UserError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def web_part(system: Any, url: str, start: int, length: int) -> tuple[bytes, int, str]:
    """Some bytes of a file.

    fsspec's own way takes whatever comes, which is the whole file where a server knows no ranges.

    Args:
        system: fsspec's HTTPFileSystem.
        url: of the file.
        start: first byte of the part.
        length: bytes; less comes where the file ends before.
    Returns: the bytes, the size of the whole file and its version ("" where the server says none).
    Raises: UserError if the server gives no parts; errors of aiohttp.
    """
    from fsspec.asyn import sync

    answer: Any = sync(system.loop, _web_part, system, url, start, length)
    return answer


async def _web_part(system: Any, url: str, start: int, length: int) -> tuple[bytes, int, str]:
    options = dict(system.kwargs)
    headers = {
        **options.pop("headers", {}), "Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity",
    }  # fmt: skip
    session = await system.set_session()
    async with session.get(system.encode_url(url), headers=headers, **options) as answer:
        if answer.status == 416:
            return b"", 0, ""
        answer.raise_for_status()
        given = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if answer.status != 206 or given is None or int(given[1]) != start or not given[3].isdecimal():
            raise UserError(
                f"{url.partition('?')[0]}: the server gives no parts of files (no byte ranges), so single images can't "
                f"be read from it: download the tar files, and name those"
            )
        size = int(given[3])
        content = await answer.content.readexactly(min(length, max(0, size - start)))
        return content, size, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
