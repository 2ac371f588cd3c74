"""Create a file only if it does not exist, so that the storage decides which of two writers wins.

pyarrow's clients have no conditional writes, so this step uses obstore: `If-None-Match: *` in S3 and
`ifGenerationMatch=0` in GCS. fsspec's other file systems accept `mode="create"`, but in some of them two writers may
both believe that they created the file. A writer that must be the only one therefore reads the file back later.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import obstore
from fsspec import AbstractFileSystem
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import GCSStore, S3Store

from sclip.storage import filesystem
from sclip.storage.masking import mask

_CLIENT: dict[str, Any] = {
    "client_options": {"connect_timeout": "5s", "timeout": "20s", "allow_http": True},
    "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
}

_log = logging.getLogger("sclip.storage")


def make_file(uri: str, fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write the file at `uri`, which is `path` in `fs`, unless the file exists. Return whether it was written."""
    try:
        if (store := _store(uri)) is not None:
            obstore.put(store, path.partition("/")[2], data, mode="create")
            return True
    except AlreadyExistsError:
        return False
    except BaseError as error:  # fsspec's client tries next, and raises the real error
        lines = mask(str(error), uri).strip().splitlines() or [type(error).__name__]
        _log.debug("%s: no conditional write: %s", mask(filesystem.parts(uri)[0]), lines[0])
    try:
        fs.invalidate_cache()
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def _store(uri: str) -> Any:
    """Return obstore's client for the bucket of an S3 or GCS URI; None for other storage."""
    scheme = uri.partition("://")[0]
    location, query = filesystem.parts(uri)
    if scheme in ("gs", "gcs") and not query:
        user, _, bucket = location.partition("://")[2].partition("/")[0].rpartition("@")
        return GCSStore(bucket, skip_signature=user == "anonymous", **_CLIENT)
    if scheme != "s3":
        return None
    place = filesystem.s3_place(uri)
    names = ("access_key_id", "secret_access_key", "session_token")
    options: dict[str, Any] = {name: key for name, key in zip(names, place.keys, strict=True) if key}
    if place.endpoint:
        is_url = "://" in place.endpoint
        options["endpoint"] = place.endpoint if is_url else f"{place.scheme}://{place.endpoint}"
    return S3Store(place.bucket, region=place.region, skip_signature=place.anonymous, **_CLIENT, **options)
