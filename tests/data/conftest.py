"""The English pipeline, which takes a second to load, is loaded once for all parsers of these tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from sclip.scenegraph import parser

_load = functools.cache(parser._load)


@pytest.fixture(autouse=True, scope="module")
def _one_pipeline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "_load", _load)
        yield
