"""Open the record of a run: continue the record of an earlier start, or begin a new record."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import RunData

from sclip.config import Config
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, address, fetch, storage_path
from sclip.tracking.journal import JOURNAL, SENT, Journal, Sent
from sclip.tracking.moved import TrackingError
from sclip.tracking.store import (
    DATABASE,
    Store,
    database_folder,
    local,
    patience,
    refusals,
    store_uri,
)
from sclip.tracking.tracker import Tracker

_log = logging.getLogger("sclip.tracking")


def open_run(config: Config, run_name: str, storage: str) -> Tracker:
    """Open the record of the training run `run_name`. If the run was started before, continue its record.

    The record is kept in `storage/runs/run_name`. If `storage` is a URI, the record is local, with a copy at the URI.
    Raises TrackingError within about ten seconds if the store cannot be used, unless `tracking.offline` is set.
    """
    folder, home = local(storage) / "runs" / run_name, storage_path(storage) / "runs" / run_name
    _take_over(home, folder)
    return _begin(config, run_name, storage, folder, home, also=config.tracking.also)


def open_parent(config: Config, name: str, storage: str, params: Mapping[str, str] | None = None) -> Tracker:
    """Open the record of a sweep or a blend. For a sweep, `Tracker.run_id` becomes `tracking.parent` of all runs.

    The record is kept in `storage/sweeps/name` and sent only to MLflow. `params` are recorded in place of the config.
    """
    folder = local(storage) / "sweeps" / name
    return _begin(config, name, storage, folder, folder, params)


def open_recorded(home: StoragePath, uri: str = "") -> Tracker:
    """Open the record of a run from its folder alone, to send the events that a store does not have.

    Args:
        home: the folder of the run; nothing is added to its journal.
        uri: the store's address; empty means the recorded one. Required if the recorded address has a masked password.

    Raises TrackingError if the folder holds no record or the store cannot be used.
    """
    folder = home if isinstance(home, Path) else local(address(home.parent.parent)) / "runs" / home.name
    if not isinstance(home, Path):
        if (home / JOURNAL).exists():  # else `home` never got a copy: send the local journal
            _take_over(home, folder)
        fetch(home, folder, [file.name for kind in ("eval*.json", "*.html") for file in home.glob(kind)])
    journal = Journal(folder) if (folder / JOURNAL).is_file() else None
    head = next((event["run"] for _, event in journal.read() if "run" in event), None) if journal else None
    is_complete = isinstance(head, dict) and all(
        isinstance(head.get(name), str) for name in ("uri", "experiment", "name", "storage")
    )
    if journal is None or head is None or not is_complete:
        raise TrackingError(f"{home}: not the folder of a run: {JOURNAL} is missing or broken")
    if "***" in (uri or head["uri"]):
        raise TrackingError(
            f"{head['uri']}: sclip records no passwords; give the store's address with --tracking-uri"
        )
    storage = head["storage"] if isinstance(home, Path) else str(database_folder(address(home)))
    recorded = head["uri"]
    if isinstance(home, Path) and home.parent.name in ("runs", "sweeps"):
        storage = str(home.parent.parent)  # the storage may have been moved
        database = Path(storage, DATABASE)
        if recorded == f"sqlite:///{head['storage']}/{DATABASE}" and (
            database.is_file() or not Path(head["storage"], DATABASE).is_file()
        ):
            recorded = f"sqlite:///{database}"
    store = Store(uri or recorded, head["experiment"], head["name"], storage)
    store.reach()
    _open(journal, store)
    tracker = Tracker(journal, store, home)
    also = [event["also"] for _, event in journal.read() if "also" in event]
    tracker.follow(also[-1] if also else (), store.experiment)
    return tracker


def _take_over(home: StoragePath, folder: Path) -> None:
    """Fetch the journal of the remote folder `home`, unless the local journal contains all of it."""
    if isinstance(home, Path):
        return
    local_journal = folder / JOURNAL
    remote = (home / JOURNAL).read_bytes() if (home / JOURNAL).exists() else b""
    if remote and local_journal.exists() and local_journal.read_bytes().startswith(remote):
        return
    if not remote and local_journal.exists():  # never copied, or of a deleted run: begin a new one
        kept = local_journal.replace(local_journal.with_suffix(f".{time.time_ns()}.jsonl"))
        _log.warning("%s has no %s; the earlier events of this machine are kept in %s", home, JOURNAL, kept)
    for name in (JOURNAL, SENT):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    fetch(home, folder, [JOURNAL, SENT])


def _begin(
    config: Config,
    name: str,
    storage: str,
    folder: Path,
    home: StoragePath,
    params: Mapping[str, str] | None = None,
    also: Sequence[str] = (),
) -> Tracker:
    store = Store(store_uri(config, storage), config.tracking.experiment, name, str(database_folder(storage)))
    try:
        store.reach()
    except TrackingError as error:
        if not config.tracking.offline:
            raise
        _log.warning("%s; until then, the run is recorded in %s", error, folder / JOURNAL)
        tracker, known = Tracker(_journal(folder, store), store, home), None
    else:
        journal = _journal(folder, store)
        known = _open(journal, store)
        tracker = Tracker(journal, store, home)
    tracker.begin(config, known, params, also)
    return tracker


def _journal(folder: Path, store: Store) -> Journal:
    try:
        journal = Journal(folder)
        if next(journal.read(), None) is None:
            head = {
                "name": store.run_name, "experiment": store.experiment, "storage": store.storage,
                "uri": mask(store.uri),
            }  # fmt: skip
            journal.append({"run": head, "time_ms": int(time.time() * 1000)})
    except OSError as error:
        raise TrackingError(f"{folder}: {error.strerror or error}; run.storage must be writable") from error
    return journal


def _open(journal: Journal, store: Store) -> RunData:
    """Find or create the MLflow run of a journal; return the data that MLflow has about this run."""
    with journal.alone(), refusals(store.uri), patience():
        sent = journal.sent
        masked_uri = mask(store.uri)
        _, event = next(journal.read())
        run = store.open(sent.run_id if sent.store == masked_uri else "", event["time_ms"])
        if (masked_uri, run.info.run_id) != (sent.store, sent.run_id):
            journal.sent = Sent(masked_uri, run.info.run_id)
        return run.data
