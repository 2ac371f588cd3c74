"""Errors of workers: which errors end a run, and how the others are reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sclip.launch.trainer import WorkerErrors
from sclip.train.manifest import CheckpointError, NotWritten


def test_a_failed_checkpoint_write_is_retried_and_a_damaged_checkpoint_ends_the_run() -> None:
    reports: list[dict[str, str]] = []
    callback = WorkerErrors(cast(Any, SimpleNamespace(put_nowait=reports.append)))
    callback.after_exception(None, {1: NotWritten("no space left"), 0: OSError("gone")})
    assert reports == [{"kind": "lost", "reason": "worker 0, and 1 more: OSError: gone"}]
    with pytest.raises(CheckpointError, match="of another model"):
        callback.after_exception(None, {0: CheckpointError("of another model")})
