"""moto's S3 server on loopback, which fails the requests that a test chooses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from sclip.storage.remote import Remote

Fault = Callable[[str, str, int], int]
"""Maps method, path and number of a request (from 1) to an error status; 0 lets the server answer."""


def every(nth: int, *methods: str, status: int = 503) -> Fault:
    """Fail every n-th request; if `methods` are given, every n-th request of these methods."""
    seen: dict[str, int] = {}

    def fault(method: str, path: str, number: int) -> int:
        if methods and method not in methods:
            return 0
        seen[""] = seen.get("", 0) + 1
        return status if seen[""] % nth == 0 else 0

    return fault


@dataclass
class ObjectStore:
    port: int
    fault: Fault | None = None
    failed: int = 0
    requests: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def uri(self, path: str) -> str:
        """Return the URI of a path in the bucket, with everything that a client needs to know."""
        return f"s3://key:secret@bucket/{path}?endpoint_override=http://127.0.0.1:{self.port}"

    def path(self, path: str) -> Remote:
        return Remote(self.uri(path))

    def status(self, method: str, path: str) -> int:
        with self._lock:
            self.requests.append(f"{method} {path}")
            code = self.fault(method, path, len(self.requests)) if self.fault else 0
            self.failed += code > 0
            return code


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    answers = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        status = store.status(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if not status:
            return answers(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} told to fail", [("Content-Length", "0")])
        return [b""]

    log = logging.getLogger("werkzeug")
    before = log.level
    log.setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    store = ObjectStore(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        client = pyarrow.fs.S3FileSystem(
            access_key="key", secret_key="secret", region="us-east-1", scheme="http",
            endpoint_override=f"127.0.0.1:{server.server_port}", allow_bucket_creation=True,
            request_timeout=60, connect_timeout=60,  # the default of 3 s is too short on a busy machine
        )  # fmt: skip
        client.create_dir("bucket")
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        log.setLevel(before)
