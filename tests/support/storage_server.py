"""A shard, and a storage server on loopback that fails as a test asks.

The server serves files over HTTP, single objects like S3 and GCS, and listings like GCS.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from sclip.data.shards import Sample, read_shard
from sclip.storage import filesystem
from sclip.storage import retries as storage
from support.tars import pair, tar_bytes

CONTENT = tar_bytes([member for number in range(40) for member in pair(f"{number:03d}", "a dog " * 100)])
"""A shard of forty samples."""
WHOLE = [(number, f"{number:03d}") for number in range(40)]
"""Index and key of each sample."""
BLOCK = 16 * 1024
"""Bytes of a read block in these tests; the shard has more than four blocks."""
CUT = 0
"""A fault: send half of the requested bytes, then close the connection. Every other fault is an HTTP status."""


@dataclass
class Storage:
    files: dict[str, bytes]
    """Content by path; the path is `/bucket/key` for S3 and GCS."""
    faults: dict[str, list[int]] = field(default_factory=dict)
    """Faults of the next requests, by path and in order."""
    ranges: bool = True
    user: str = ""
    """`name:password` that each request must send; empty if none is needed."""
    signature: str = ""
    """Query that each request must have, and that allows only GET; empty if none is needed."""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(storage: Storage) -> Iterator[Storage]:
    handler = type("Handler", (_Handler,), {"storage": storage})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        storage.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield storage
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        storage, url = self.storage, urlsplit(self.path)
        path = unquote(url.path)
        byte_range = self.headers.get("Range", "") if storage.ranges else ""
        storage.requests.append(f"{self.command} {path} {byte_range}".strip())
        if (faults := storage.faults.get(path)) and faults[0] != CUT:
            return self._answer(faults.pop(0))
        user = base64.b64encode(storage.user.encode()).decode()
        if storage.user and self.headers.get("Authorization") != f"Basic {user}":
            return self._answer(401)
        if storage.signature and (url.query != storage.signature or self.command != "GET"):
            return self._answer(403)
        if path.startswith("/storage/v1/b/"):
            return self._gcs(path, parse_qs(url.query))
        content = self._listing(path) if path.endswith("/") else storage.files.get(path)
        if content is None:
            return self._answer(404)
        return self._send(path, content, byte_range)

    def _send(self, path: str, content: bytes, byte_range: str) -> None:
        first, last = 0, len(content) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", byte_range):
            first, last = int(match[1]), min(int(match[2] or last), last)
        part = content[first : last + 1]
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Type", "text/html" if path.endswith("/") else "application/x-tar")
        if self.storage.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if byte_range:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.storage.faults.get(path):
            self.storage.faults[path].pop(0)
            self.close_connection = True
            part = part[: len(part) // 2]
        try:
            self.wfile.write(part)
        except ConnectionError:  # the reader closed the connection early
            self.close_connection = True

    def _gcs(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer like the JSON API of GCS: an object's bytes, an object's metadata, or a listing."""
        bucket, _, key = path.removeprefix("/storage/v1/b/").partition("/o")
        object_path = f"/{bucket}{key}"
        if "alt" in query and object_path in self.storage.files:
            return self._send(object_path, self.storage.files[object_path], self.headers.get("Range", ""))
        described = {
            file: {"name": file.removeprefix(f"/{bucket}/"), "bucket": bucket, "size": str(len(content))}
            for file, content in self.storage.files.items()
        }
        if not key:
            prefix = f"/{bucket}/{query['prefix'][0]}"
            answer: Any = {"items": [info for file, info in described.items() if file.startswith(prefix)]}
        else:
            answer = described.get(object_path)
        return self._answer(200 if answer else 404, json.dumps(answer).encode())

    def _listing(self, folder: str) -> bytes:
        names = [path.removeprefix(folder) for path in self.storage.files if path.startswith(folder)]
        return "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove retry delays, make blocks small, and remove settings that lead to a real S3."""
    monkeypatch.setattr(storage, "RETRY_DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(filesystem, "BLOCK_BYTES", BLOCK)
    for name in ("SESSION_TOKEN", "REGION", "DEFAULT_REGION", "ENDPOINT_URL_S3"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # a closed port, never AWS


def url_of(kind: str, server: Storage, name: str = "000.tar") -> str:
    """Return the URI of a file in /bucket/train of the server, for `http`, `s3` or `gs`."""
    if kind == "http":
        return f"http://{server.host}/bucket/train/{name}"
    user = "anonymous@" if kind == "gs" else ""
    return f"{kind}://{user}bucket/train/{name}?endpoint_override={server.host}&scheme=http"


def keys(url: str) -> list[tuple[int, str]]:
    """Return index and key of every sample; fail if the reader yields anything but samples."""
    items = list(read_shard(url))
    assert all(isinstance(item, Sample) for item in items)
    return [(item.index, item.key) for item in items]
