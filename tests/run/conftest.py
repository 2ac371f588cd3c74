"""Fixtures: a storage folder for the runs of a test module, and the main job that uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sclip.run.summary import Summary
from support.runs import starter


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def start(storage: Path) -> Callable[..., Summary]:
    return starter(storage)
