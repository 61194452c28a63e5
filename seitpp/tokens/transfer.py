"""Files behind a URL: read from front to back, asked for again where that helps, and in one line what went wrong.

Nothing here asks a server for a part of a file or for its length: some know neither. What a server answers is told
apart: a passing trouble (503, too many requests, a lost connection) is waited out, anything else is said at once.
"""

import errno
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from seitpp.runtime.errors import UserError
from seitpp.tokens.redirects import guarded_session

_Answer = TypeVar("_Answer")
_BLOCK = 1 << 22
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_SILENCE = 60.0
"""Seconds without a byte after which a server is asked again. A whole shard may take any time."""
_FIRST_ATTEMPTS = 3
"""For a server that has not answered yet and can't be reached: its name may be wrong."""
_UNREACHABLE = ("ClientConnectorError", "ClientConnectorDNSError", "EndpointConnectionError", "ConnectTimeoutError")
_PASSING = (408, 409, 425, 429, *range(500, 600))
_NO_ACCESS = (401, 403, 407)
_GONE = (404, 410)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "TokenRetrievalError")
"""Errors of botocore and google-auth, by their names: neither package may be here."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
_COPY = "check that the whole store was copied there"
_PAGES = (b"<!doctype html", b"<html")


class Passing(Exception):
    """A trouble that may pass.

    Args:
        reason: what it was.
        advice: what to do if it stays.
        pause: seconds that the server asks to wait.
        unreachable: whether there was nobody to ask.
    """

    def __init__(
        self,
        reason: str,
        advice: str = "check the network and the server, and start again",
        pause: float = 0,
        *,
        unreachable: bool = False,
    ):
        super().__init__(reason)
        self.advice = advice
        self.pause = pause
        self.unreachable = unreachable


class Missing(UserError):
    """There is no such file."""


class Server:
    """A file system that fsspec knows, asked with patience.

    Args:
        url: of a folder.
        attempts: how often a file is asked for, each time after twice the pause of the one before.
        wait: of a number of seconds; tests wait for nothing.
        missing: what to do where a file is not there, for the message.
    Raises: UserError if fsspec does not know the protocol, or a package for it is missing.
    """

    def __init__(
        self, url: str, attempts: int, wait: Callable[[float], object] = time.sleep, *, missing: str = _COPY
    ) -> None:
        import fsspec

        self.attempts = attempts
        self.answered = False
        self.wait = wait
        self.missing = missing
        self.streams = url.startswith(("http://", "https://"))
        try:
            self.system, _ = fsspec.core.url_to_fs(url, **(_of_a_session() if self.streams else {}))
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(url.partition("://")[0]) if isinstance(error, ImportError) else None
            advice = f": pip install 'seitpp[{extra}]'" if extra else ""
            raise UserError(f"{url} can't be read: {error}{advice}") from error

    def read(self, url: str) -> bytes:
        """Content of a small file.

        Raises: UserError if it can't be had; Missing if it is not there.
        """
        return self.patiently(lambda: b"".join(self.blocks(url)), url)

    def size(self, url: str) -> int:
        """Bytes of a file, as far as the server says it; 0 where it does not."""
        with suppress(Exception):  # each file system has errors of its own; those that matter come with the file
            return int(self.system.info(url)["size"] or 0)
        return 0

    def blocks(self, url: str) -> Generator[bytes, None, None]:
        """The parts of a file, from front to back, a few MB of it in memory at a time.

        Raises: Passing, or UserError where asking again would be no use.
        """
        # 0 makes of HTTP one request whose answer is read as it comes; a length given, it is not asked for.
        how = {"block_size": 0, "size": 1} if self.streams else {"block_size": _BLOCK}
        first = True
        with self.told(url), self.system.open(url, "rb", **how) as source:
            while block := source.read(_BLOCK):
                if first and block.lstrip()[:14].lower().startswith(_PAGES):
                    raise UserError(
                        f"{url}: the server answers with a web page instead of the file, such as a login: open it "
                        f"in a browser, and give a URL that needs none"
                    )
                first = False
                yield block

    @contextmanager
    def told(self, url: str) -> Iterator[None]:
        """Every error of a file system as Passing or a UserError; each library has errors of its own."""
        try:
            yield
        except (UserError, Passing, GeneratorExit):
            raise
        except Exception as error:
            raise _meaning(error, url, self.missing) from error

    def patiently(self, action: Callable[[], _Answer], url: str, done: str = "fetched") -> _Answer:
        """Do something that raises Passing where it should be tried again.

        Args:
            action: what to do.
            url: what it is about, for the message.
            done: what is done to it, likewise.
        Raises: UserError if the last attempt failed, too.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                answer = action()
                self.answered = True
                return answer
            except Passing as passing:
                typo = passing.unreachable and not self.answered and attempt >= _FIRST_ATTEMPTS
                if typo or attempt == self.attempts:
                    tried = f"tried {attempt} times" if attempt > 1 else "tried once"
                    raise UserError(f"{url} can't be {done} ({passing}), {tried}: {passing.advice}") from passing
                self.wait(max(passing.pause, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))))
        raise AssertionError("a server is asked at least once")


def _of_a_session() -> dict[str, Any]:
    """Options for HTTP: checked redirects, and no limit of five minutes a file, too short for a large shard."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return {"client_kwargs": {"timeout": timeout, "trace_configs": guarded_session()}}


def _meaning(error: Exception, url: str, missing: str) -> Exception:
    status = _status(error)
    reason = f"{status} {getattr(error, 'message', '')}".strip() if status else _words(error)
    if isinstance(error, FileNotFoundError) or status in _GONE:
        return Missing(f"{url} is not there: {missing}")
    if isinstance(error, PermissionError) or status in _NO_ACCESS:
        return UserError(f"{url}: the server refuses access ({reason}): log in there, or ask its owner for access")
    if type(error).__name__ in _NO_CREDENTIALS:
        return UserError(f"{url}: no access ({reason}): give it credentials, as its own tools take them")
    if (status and status not in _PASSING) or (isinstance(error, OSError) and error.errno == errno.EINVAL):
        return UserError(f"{url}: the server refuses ({reason}): check the URL")
    return Passing(reason, pause=_asked_pause(error), unreachable=type(error).__name__ in _UNREACHABLE)


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of aiohttp (`status`) or of the Google Cloud's file system (`code`)."""
    status = str(getattr(error, "status", None) or getattr(error, "code", None) or "")
    return int(status) if status.isdecimal() else None


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_SILENCE:.0f} s"
    return re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split())) or type(error).__name__


def _asked_pause(error: Exception) -> float:
    """Seconds of a Retry-After header, within reason; 0 without one, or where it is a date."""
    asked = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
    return min(_LONGEST_PAUSE, float(asked)) if asked.isdecimal() else 0.0
