"""Redirects of web servers: followed where they stay with the host, or lead to the public internet by https.

A server that sends a reader elsewhere chooses what the reader's machine asks for next. So none leads into the network
that this machine stands in (its own services, the metadata of a cloud's machine), and none gives up https.
"""

import ipaddress
import socket
from typing import Any
from urllib.parse import urljoin, urlsplit

from seitpp.runtime.errors import UserError


def check_redirect(origin: str, target: str) -> None:
    """Refuse a redirect that is not to be followed.

    Args:
        origin: URL that was asked for.
        target: URL that the server names, absolute.
    Raises: UserError naming both hosts.
    """
    asked, named = urlsplit(origin), urlsplit(target)
    if named.scheme not in ("http", "https"):
        problem = f"to {named.scheme}://, which is no web server"
    elif asked.scheme == "https" and named.scheme != "https":
        problem = f"from https to http ({named.hostname})"
    elif named.hostname == asked.hostname:
        return
    elif named.scheme != "https":
        problem = f"to another host without https ({named.hostname})"
    elif not _is_public(named.hostname or "", named.port or 443):
        problem = f"into the network of this machine ({named.hostname})"
    else:
        return
    raise UserError(f"{asked.scheme}://{asked.netloc}{asked.path}: the server redirects {problem}: give the right URL")


def guarded_session() -> list[Any]:
    """`trace_configs` for aiohttp's session, which check each redirect before it is followed."""
    import aiohttp

    async def check(session: Any, context: Any, answer: Any) -> None:
        place = answer.response.headers.get("Location") or answer.response.headers.get("URI") or ""
        check_redirect(str(answer.url), urljoin(str(answer.url), place))

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return [trace]


def _is_public(host: str, port: int) -> bool:
    """Whether all addresses of a host are of the public internet; one that is not known is nobody's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return True  # the request itself will say so
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global for each in found)
