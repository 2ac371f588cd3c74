"""A file that must not be there yet: the one step by which storage itself decides between two writers.

pyarrow's clients have no conditional writes, so this step alone goes through obstore: `If-None-Match: *` in S3,
`ifGenerationMatch=0` in GCS, with the credentials, region and endpoint that `sclip.storage.filesystem` finds. fsspec's
other file systems have a mode for it, which some of them (Azure's) make one step too. Where the storage or the client
knows no such step the file is written if it is not seen, so two writers may both believe to have made it: whoever
needs to be alone reads it back, and looks at it again later.
"""

from __future__ import annotations

import functools
import logging
from datetime import timedelta
from typing import Any

import obstore
from fsspec import AbstractFileSystem
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import GCSStore, S3Store

from sclip.storage import filesystem
from sclip.storage.masking import mask

_CLIENT: dict[str, Any] = {"connect_timeout": "5s", "timeout": "20s", "allow_http": True}
_RETRIES: dict[str, Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}

_log = logging.getLogger("sclip.storage")


def make_file(uri: str, fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write the file of a URI, which is `path` in `fs`, unless there is one; return whether it was written."""
    try:
        if (store := _store(uri)) is not None:
            obstore.put(store, path.partition("/")[2], data, mode="create")
            return True
    except AlreadyExistsError:
        return False
    except BaseError as error:  # the other client says what is wrong, if anything is
        lines = mask(str(error), uri).strip().splitlines() or [type(error).__name__]
        _log.debug("%s: no conditional write: %s", mask(filesystem.parts(uri)[0]), lines[0])
    try:
        fs.invalidate_cache()
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def _store(uri: str) -> Any:
    """Return obstore's client for the bucket of a URI of S3 or GCS; None for other storage."""
    scheme = uri.partition("://")[0]
    if scheme == "s3":
        place = filesystem.s3_place(uri)
        return _s3(place)
    location, query = filesystem.parts(uri)
    if scheme in ("gs", "gcs") and not query:
        user, _, bucket = location.partition("://")[2].partition("/")[0].rpartition("@")
        return _gcs(bucket, user == "anonymous")
    return None


@functools.lru_cache(maxsize=64)
def _s3(place: filesystem.S3Place) -> Any:
    keys = dict(zip(("access_key_id", "secret_access_key", "session_token"), place.keys, strict=True))
    options: dict[str, Any] = {name: value for name, value in keys.items() if value}
    if place.endpoint:
        known = "://" in place.endpoint
        options["endpoint"] = place.endpoint if known else f"{place.scheme}://{place.endpoint}"
    if place.anonymous:
        options["skip_signature"] = True
    return S3Store(
        place.bucket, region=place.region, client_options=_CLIENT, retry_config=_RETRIES, **options
    )


@functools.lru_cache(maxsize=64)
def _gcs(bucket: str, anonymous: bool) -> Any:
    return GCSStore(bucket, skip_signature=anonymous, client_options=_CLIENT, retry_config=_RETRIES)
