"""Open a path or URI in any storage: as a file system, as a forward stream or as a seekable file.

pyarrow opens s3:// and gs://, because its wheel includes clients that retry failed requests. fsspec opens everything
else. Credentials, region and endpoint come from the environment or from a URI in pyarrow's syntax:
`s3://KEY:SECRET@BUCKET/..?endpoint_override=http://HOST:PORT&region=..`, `gs://anonymous@..`.

Files in S3 and on HTTP servers with range support are read one block per request, so that a slow consumer keeps no
connection open. Other files are read as one stream. The exceptions of the libraries pass through unchanged.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import fsspec
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper

BLOCK_BYTES = 8 * 2**20
"""Size of one request: large enough to hide the latency, small enough for many readers to fit in memory."""

_QUERY = re.compile(r"\?[\w.-]+=")
_S3_OPTIONS = {"anonymous", "endpoint_override", "region", "scheme"}
_GCS_RETRY_S = 30  # instead of the client's 15 minutes
_HTTP_WAIT_S = 60  # without a byte


def parts(uri: str) -> tuple[str, str]:
    """Split a path or URI into location and query, which is "?NAME=.." or empty."""
    # A `?` without `NAME=` is a wildcard.
    query = _QUERY.search(uri) if "://" in uri else None
    return (uri[: query.start()], uri[query.start() :]) if query else (uri, "")


def sibling(uri: str, name: str) -> str:
    """Return the path or URI of the file `name` beside `uri`, with the same query, which may hold credentials."""
    location, query = parts(uri)
    return f"{location[: location.rfind('/') + 1]}{name}{query}"


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of a path or URI, and the path in it.

    Raises ValueError or ImportError for a URI that no library opens, and OSError if AWS does not report the region.
    """
    scheme = uri.partition("://")[0]
    if scheme in ("s3", "gs", "gcs"):
        location, query = parts(uri)
        bucket, _, key = location.partition("://")[2].partition("/")
        fs = _s3(s3_place(uri)) if scheme == "s3" else _gcs(f"{scheme}://{bucket}{query}")
        return fs, f"{bucket.rpartition('@')[2]}/{key}"
    if scheme in ("http", "https"):
        return _http(), uri
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path


def open_stream(uri: str, block_bytes: int = 0) -> BinaryIO:
    """Open a path or URI as a forward stream. S3 and GCS are read `block_bytes` at a time; 0 means BLOCK_BYTES.

    Raises the errors of the library that opens it.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, ArrowFSWrapper):  # without a buffer, each read (10 KiB for a tar) is one request
        stream = fs.fs.open_input_stream(path, compression=None, buffer_size=block_bytes or BLOCK_BYTES)
    elif fs is _http():
        stream, size = _http_answer(path)
        if size > BLOCK_BYTES:
            stream.close()
            stream = fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead", size=size)
    else:
        stream = fs.open(path, "rb")
        if "::" in uri:  # keep a reference: an archive's file system closes the archive when it is freed
            stream.filesystem = fs
    return cast(BinaryIO, stream)


def open_seekable(uri: str) -> Any:
    """Open a path or URI as a seekable file. Raises the errors of the library that opens it.

    If an HTTP server supports no ranges, the file is first copied to this node's disk. Closing it deletes the copy.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, ArrowFSWrapper):
        return fs.fs.open_input_file(path)
    if fs is not _http():
        return open_stream(uri)
    stream, size = _http_answer(path)
    with closing(stream):
        if size:
            return fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none", size=size)
        # The server supports no ranges.
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # whoever opens the file closes it
        shutil.copyfileobj(stream, copy, BLOCK_BYTES)
        return copy


class S3Place(NamedTuple):
    """Settings to reach an S3 bucket."""

    bucket: str
    region: str
    endpoint: str  # URL or HOST:PORT; empty for AWS
    scheme: str  # of an endpoint that is only HOST:PORT
    keys: tuple[str, str, str]
    """Key, secret and session token; empty if the client must find them itself."""
    anonymous: bool


def s3_place(uri: str) -> S3Place:
    """Return the settings for the bucket of `s3://[KEY:SECRET@]BUCKET/..[?OPTIONS]`, from the URI and the environment.

    Raises ValueError for an unknown option, and OSError if AWS does not report the bucket's region.
    """
    location, query = parts(uri)
    url = urlsplit("//" + location.partition("://")[2].partition("/")[0])
    options = dict(parse_qsl(query[1:]))
    if unknown := options.keys() - _S3_OPTIONS:
        raise ValueError(f"unknown option {min(unknown)}; the options are {', '.join(sorted(_S3_OPTIONS))}")
    bucket = url.netloc.rpartition("@")[2]
    if url.username:
        keys = (unquote(url.username), unquote(url.password or ""), "")
    else:
        keys = (_env("AWS_ACCESS_KEY_ID"), _env("AWS_SECRET_ACCESS_KEY"), _env("AWS_SESSION_TOKEN"))
    endpoint = options.get("endpoint_override") or _env("AWS_ENDPOINT_URL_S3") or _env("AWS_ENDPOINT_URL")
    region = options.get("region") or _env("AWS_REGION") or _env("AWS_DEFAULT_REGION")
    if not region:  # servers other than AWS have no regions or accept this one
        region = "us-east-1" if endpoint else _region(bucket)
    anonymous = options.get("anonymous", "").lower() in ("1", "true")
    return S3Place(bucket, region, endpoint, options.get("scheme", "https"), keys, anonymous)


def _env(name: str) -> str:
    return os.environ.get(name, "")


@functools.lru_cache(maxsize=64)
def _region(bucket: str) -> str:
    return str(pyarrow.fs.resolve_s3_region(bucket))


@functools.lru_cache(maxsize=64)
def _s3(place: S3Place) -> ArrowFSWrapper:
    settings: dict[str, Any] = {"anonymous": True} if place.anonymous else {}
    if place.keys[0] and not place.anonymous:
        # Pass the keys: otherwise the client first asks EC2's metadata service, which takes seconds outside EC2.
        key, secret, token = place.keys
        settings = {"access_key": key, "secret_key": secret, "session_token": token or None}
    fs = pyarrow.fs.S3FileSystem(
        region=place.region, endpoint_override=place.endpoint or None, scheme=place.scheme, **settings
    )
    return ArrowFSWrapper(fs, skip_instance_cache=True)


@functools.lru_cache(maxsize=64)
def _gcs(root: str) -> ArrowFSWrapper:
    if "retry_limit_seconds=" not in root:
        root += f"{'&' if '?' in root else '?'}retry_limit_seconds={_GCS_RETRY_S}"
    return ArrowFSWrapper(pyarrow.fs.FileSystem.from_uri(root)[0], skip_instance_cache=True)


@functools.cache
def _http() -> fsspec.AbstractFileSystem:
    import aiohttp  # imported late, because most shards do not need it

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_HTTP_WAIT_S, sock_read=_HTTP_WAIT_S)
    return fsspec.filesystem(
        "http", client_kwargs={"timeout": timeout, "trust_env": True}, headers={"Accept-Encoding": "identity"}
    )


def _http_answer(url: str) -> tuple[Any, int]:
    """Return the response to a GET and the file's size in bytes; 0 means that the server supports no ranges."""
    # `size` keeps fsspec from sending HEAD. Many signed URLs refuse it, which fsspec takes for a missing file.
    stream = _http().open(url, "rb", block_size=0, size=1)
    headers = stream.r.headers
    takes_ranges = headers.get("Accept-Ranges") == "bytes" and "Content-Encoding" not in headers
    return stream, int(headers.get("Content-Length", 0)) if takes_ranges else 0
