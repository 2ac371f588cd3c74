"""A run's folder in; what MLflow has not yet of its record sent, and the model of a finished run registered."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

from sclip import registry, tracking
from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
from sclip.run import lease
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, local_copy, shown, storage_path
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import read_run_inputs


class NotSent(RuntimeError):
    """The store took only a part."""


def folder_of(run: str, storage: str) -> StoragePath:
    """Return the folder of a run or a sweep, named by folder, URI or name."""
    in_storage = storage_path(storage)
    places = (storage_path(run), in_storage / "runs" / run, in_storage / "sweeps" / run)
    return next((folder for folder in places if folder.is_dir()), places[1])


def sync(folder: StoragePath, tracking_uri: str, say: Callable[[str], None]) -> Iterator[str]:
    """Send what the store has not, into the run that it has or a new one; yield what was done, a line each.

    `say` is told that this waits for another process: a run that lives sends its record itself, and two that send would
    send a part of it twice.

    Raises NotSent where the store took only a part, TrackingError or OSError where nothing can be sent, ConfigError
    too, while another process runs it.
    """
    with lease.held(folder, say) if folder.is_dir() else contextlib.nullcontext():
        yield from _sync(folder, tracking_uri)


def _sync(folder: StoragePath, tracking_uri: str) -> Iterator[str]:
    tracker = tracking.open_recorded(folder, tracking_uri)
    if left := tracker.close():
        raise NotSent(left)
    yield f"{shown(folder)}: all is in {mask(tracker.uri)}, run {tracker.run_id}"
    result = folder / "result.json"
    if not result.is_file():
        return
    try:
        registered = bool(json.loads(result.read_text())["version"])
    except (ValueError, LookupError, TypeError) as error:
        raise tracking.TrackingError(f"{result}: not what a run leaves behind: {error}") from error
    if not registered:
        yield from _register(folder, tracker)


def _register(folder: StoragePath, tracker: tracking.Tracker) -> Iterator[str]:
    run, config = RunFolder(folder), read_run_inputs(folder)[0].tracking
    name, gates = config.model_name, config.gates
    try:
        measured = Evaluation.read(folder / EVALUATION_FILE)
        with local_copy(run.model) as exported:
            version = registry.register(tracker.client, tracker.run_id, exported, name, measured, gates)
        decision = registry.decide(tracker.client, name, version).lines() if gates else []
    except (EvaluationError, registry.RegistryError) as error:
        raise NotSent(str(error)) from error
    run.record_result((run.result or {}) | {"version": version, "decision": decision})
    yield f"registered: models:/{name}/{version}"
    yield from decision
