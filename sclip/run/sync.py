"""Send the events of a run that MLflow lacks, and register the model of a finished run."""

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
    """Error for a store that took only a part of a run's events, or a model that could not be registered."""


def folder_of(run: str, storage: str) -> StoragePath:
    """Return the folder of a run or a sweep, given by folder, URI or name; STORAGE/runs/RUN if there is no folder."""
    in_storage = storage_path(storage)
    places = (storage_path(run), in_storage / "runs" / run, in_storage / "sweeps" / run)
    return next((folder for folder in places if folder.is_dir()), places[1])


def sync(folder: StoragePath, tracking_uri: str, say: Callable[[str], None]) -> Iterator[str]:
    """Send the events that the store lacks to the run's MLflow run, or to a new one; yield a line for each action.

    `say` is called with a line if `sync` waits for another process. Raises NotSent if the store takes only a part of
    the events or the model cannot be registered, TrackingError or OSError if nothing can be sent, and ConfigError if
    another process owns the run.
    """
    # A live run sends its own events; two senders would send some events twice.
    with lease.held(folder, say) if folder.is_dir() else contextlib.nullcontext():
        yield from _sync(folder, tracking_uri)


def _sync(folder: StoragePath, tracking_uri: str) -> Iterator[str]:
    tracker = tracking.open_recorded(folder, tracking_uri)
    if unsent := tracker.close():
        raise NotSent(unsent)
    yield f"{shown(folder)}: all is in {mask(tracker.uri)}, run {tracker.run_id}"
    result = folder / "result.json"
    if not result.is_file():
        return
    try:
        registered = bool(json.loads(result.read_text())["version"])
    except (ValueError, LookupError, TypeError) as error:
        raise tracking.TrackingError(f"{result}: not the result of a run: {error}") from error
    if not registered:
        yield from _register(folder, tracker)


def _register(folder: StoragePath, tracker: tracking.Tracker) -> Iterator[str]:
    run, config = RunFolder(folder), read_run_inputs(folder)[0].tracking
    name, gates = config.model_name, config.gates
    try:
        measured = Evaluation.read(folder / EVALUATION_FILE)
        with local_copy(run.model) as exported:
            version = registry.register_once(tracker.client, tracker.run_id, exported, name, measured, gates)
        decision = registry.decide(tracker.client, name, version).lines() if gates else []
    except (EvaluationError, registry.RegistryError) as error:
        raise NotSent(str(error)) from error
    run.record_result((run.result or {}) | {"version": version, "decision": decision})
    yield f"registered: models:/{name}/{version}"
    yield from decision
