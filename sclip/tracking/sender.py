"""Send the journal of a run to an MLflow store, in a thread that retries as long as it must.

Events go in their order, many metrics per call. MLflow stores a metric of the same key, step, time and value once, so
anything may be sent again after a lost answer or a crash. An event that MLflow refuses as invalid is skipped with a
warning, and stays in the journal.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from sclip.storage.masking import mask
from sclip.tracking.journal import Event, Journal, Sent
from sclip.tracking.mlflow_batches import entities, first_batch, parts
from sclip.tracking.store import Store, first_cause, patience

_GATHER_S = 1.0
"""Seconds between calls, in which metrics gather."""
_ANSWER_S = 30
"""Seconds that a store may take to answer; nobody but this thread waits."""
_RETRY_S = (1.0, 30.0)
"""The first and the longest wait for a store that does not answer; each is twice the one before.

Not tenacity's loop, because `flush` and `close` end this wait early.
"""

_log = logging.getLogger("sclip.tracking")


class Sender:
    """Sends a journal to a store from a daemon thread of its own."""

    def __init__(self, journal: Journal, store: Store) -> None:
        """Start the thread; it continues where the journal was last sent to."""
        self._journal = journal
        self._store = store
        self._state = threading.Condition()
        self._has_news = True
        self._flushes = self._flushed = self._batches = 0
        self._closing = self._reached = False
        self._refused: set[str] = set()
        self.trouble = ""
        """Why the store takes no events; empty while it does."""
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake the thread: the journal has grown."""
        with self._state:
            self._has_news = True
            self._state.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Wait until all earlier events are sent; return False after `wait_s` seconds without any progress."""
        with self._state:
            self._flushes += 1
            self.notify()
            number, batches, until = self._flushes, self._batches, time.monotonic() + wait_s
            while self._flushed < number:
                if not self._state.wait(until - time.monotonic()) and time.monotonic() >= until:
                    return False
                if self._batches > batches:
                    batches, until = self._batches, time.monotonic() + wait_s
        return True

    def close(self) -> None:
        """End the thread; one that waits for the network ends with the process instead."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        delay = _RETRY_S[0]
        while True:
            with self._state:
                self._state.wait_for(lambda: self._has_news or self._closing)
                if self._closing:
                    return
                flushes, self._has_news = self._flushes, False
            try:
                until = self._journal.size  # later events wait for the next round: they may never end
                while not self._closing and self._send(until):
                    with self._state:
                        self._batches += 1
                        self._state.notify_all()
            except Exception as error:  # of any library below MLflow: this thread must survive all of them
                cause = first_cause(error)
                if cause != self.trouble:
                    _log.warning("metrics wait on disk for %s: %s", mask(self._store.uri), cause)
                self.trouble = cause
                pause, delay = delay, min(2 * delay, _RETRY_S[1])
                with self._state:
                    self._has_news = True
            else:
                if self.trouble:
                    _log.warning("%s takes metrics again", mask(self._store.uri))
                self.trouble, pause, delay = "", _GATHER_S, _RETRY_S[0]
                with self._state:
                    self._flushed = flushes
                    self._state.notify_all()
            with self._state:  # events gather, or a store comes back; a new `flush` ends the wait
                if self._flushes > self._flushed:  # somebody waits
                    pause = min(pause, _RETRY_S[0])
                self._state.wait_for(lambda: self._closing or self._flushes > flushes, pause)  # noqa: B023

    def _send(self, until: int) -> bool:
        """Send the next batch before an offset, after all of them the next artifact; return False if none is left."""
        store = mask(self._store.uri)
        with self._journal.alone(), patience(_ANSWER_S):
            sent = self._journal.sent
            if sent.store != store:
                sent = Sent(store)
            events, end = first_batch(self._journal, sent.offset) if sent.offset < until else ([], 0)
            if not events and not sent.artifacts:
                return False
            if not self._reached:  # MLflow itself would retry a missing database for 15 minutes
                self._store.reach()
                self._reached = True
            if not sent.run_id:
                started_ms = next(event["time_ms"] for _, event in self._journal.read())
                sent = replace(sent, run_id=self._store.open("", started_ms).info.run_id)
                self._journal.sent = sent
            try:
                if not events:
                    self._upload(sent)
                    return True
                if "artifact" in events[0]:  # uploaded later, so that no metric waits for a file
                    sent = replace(sent, artifacts=(*sent.artifacts, sent.offset))
                else:
                    self._deliver(sent.run_id, events)
                self._journal.sent = replace(sent, offset=end)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and self._store.find(sent.run_id) is None:
                    self._journal.sent = Sent(store)  # the store has lost the run: send all of it again
                raise
            return True

    def _upload(self, sent: Sent) -> None:
        at, *others = sent.artifacts
        self._journal.sent = replace(
            sent, artifacts=(*others, at)
        )  # should this one fail, the others come first
        _, event = next(self._journal.read(at))
        path = Path(event["artifact"])
        if not path.exists():  # a path of another machine: the file came along in the run's folder
            path = self._journal.folder / path.name
        if path.exists():
            log = self._store.client.log_artifacts if path.is_dir() else self._store.client.log_artifact
            log(sent.run_id, str(path), event["to"] or None)
        else:
            _log.warning("%s was to be recorded, but no longer exists", path)
        self._journal.sent = replace(sent, artifacts=tuple(others))

    def _deliver(self, run_id: str, events: list[Event]) -> None:
        try:
            self._call(run_id, events)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or self._store.find(run_id) is None:
                raise
            smaller = events if len(events) > 1 else list(parts(events[0]))
            if len(smaller) > 1:
                for part in smaller:
                    self._deliver(run_id, [part])
            else:
                self._refused |= set(smaller[0].get("metrics", ()))
                text = mask(json.dumps(smaller[0], ensure_ascii=False))[:300]
                _log.warning("%s refuses %s: %s", mask(self._store.uri), text, first_cause(error))

    def _call(self, run_id: str, events: list[Event]) -> None:
        client, event = self._store.client, events[0]
        if "run" in event:  # the journal's own head
            return
        if "dataset" in event:
            tags = [InputTag(MLFLOW_DATASET_CONTEXT, event["context"])]
            client.log_inputs(run_id, [DatasetInput(Dataset(**event["dataset"]), tags)])
        elif event.get("status") == "RUNNING":
            client.update_run(run_id, status="RUNNING")
        elif "status" in event:
            client.set_terminated(run_id, event["status"], event["time_ms"])
        else:
            client.log_batch(run_id, *entities(events, self._refused))
