"""Servers that images are read from and stores written to: a real S3 (moto's), and web servers with and without ranges.

Both fail in the ways of `troubles`, one a request: a status, "reset" (the connection ends without a word), "cut off"
(half of the answer comes) or "stall" (nothing comes, until the server is closed).
"""

import io
import os
import re
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Web(ThreadingHTTPServer):
    """A web server for a folder.

    Attributes:
        asked: (path, Range header) of each request.
        troubles: what goes wrong next.
        redirect: URL that all requests are sent to; None: none are.
    """

    daemon_threads = True

    def __init__(self, folder, *, ranges=True):
        self.asked, self.troubles, self.over, self.redirect = [], [], threading.Event(), None
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.asked.append((self.path, wanted))
                trouble = server.troubles.pop(0) if server.troubles else None
                if server.redirect is not None:
                    self.answer(302, b"", Location=server.redirect)
                elif isinstance(trouble, int):
                    self.answer(trouble, b"busy")
                elif trouble == "stall":
                    server.over.wait()
                elif trouble != "reset":
                    self.give(Path(folder, self.path.lstrip("/").partition("?")[0]), wanted, cut=trouble == "cut off")
                self.close_connection = True

            def give(self, file, wanted, cut):
                if not file.is_file():
                    return self.answer(404, b"")
                size, tag = file.stat().st_size, f'"{file.stat().st_mtime_ns:x}"'
                if not (ranges and wanted):
                    return self.answer(200, file.read_bytes(), ETag=tag)
                first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
                last = min(last, size - 1)
                if first > last:
                    return self.answer(416, b"")
                with file.open("rb") as content:
                    content.seek(first)
                    part = content.read(last + 1 - first)
                where = {"Content-Range": f"bytes {first}-{last}/{size}", "ETag": tag}
                return self.answer(206, part, sent=part[: len(part) // 2] if cut else part, **where)

            def answer(self, status, content, sent=None, **headers):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content if sent is None else sent)

            def log_message(self, *words):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.over.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class S3:
    """moto's S3 behind a web server of this process, with one bucket, named bucket.

    Attributes:
        asked: (method, path, query) of each request.
        troubles: statuses, one for each request that `hits` picks; None: nothing goes wrong.
        slow: seconds that each request takes.
    """

    def __init__(self):
        pytest.importorskip("s3fs")
        pytest.importorskip("flask_cors")
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *words):
                pass

        self.asked, self.troubles, self.hits, self.slow = [], [], lambda method, path: "/bucket/" in path, 0.0
        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.environment = {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }  # fmt: skip

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path, environ["QUERY_STRING"]))
        if self.slow:
            time.sleep(self.slow)
        status = self.troubles.pop(0) if self.troubles and self.hits(method, path) else None
        if status is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} Trouble", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start_response)

    def upload(self, folder, to):
        """Put a folder's files to s3://bucket/{to}."""
        import fsspec

        system, _ = fsspec.core.url_to_fs("s3://bucket/")
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                system.pipe_file(f"bucket/{to}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        system.invalidate_cache()

    def content(self, place):
        """{name: bytes} of s3://bucket/{place}."""
        import fsspec

        system, _ = fsspec.core.url_to_fs("s3://bucket/")
        system.invalidate_cache()
        root = f"bucket/{place}/"
        return {path.removeprefix(root): system.cat_file(path) for path in system.find(root)}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def tar_bytes(members):
    """{name: bytes} as a tar."""
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()
