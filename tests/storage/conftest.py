"""Servers for the tests of storage: one that serves a shard over HTTP, S3 and GCS, and an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.object_store import ObjectStore, object_store
from support.storage_server import CONTENT, Storage, isolate, serving


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture
def server() -> Iterator[Storage]:
    """A server with the shard at /bucket/train/000.tar, for HTTP, S3 and GCS."""
    with serving(Storage({"/bucket/train/000.tar": CONTENT})) as running:
        yield running


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def store(
    object_server: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectStore]:
    """The object store without faults. The test gets its own temporary folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    object_server.fault, object_server.failed = None, 0
    object_server.requests.clear()
    yield object_server
    object_server.fault = None
