"""Send the journal of a run to an MLflow store: one thread, which tries again while it must.

Events go in their order, many metrics a call. The store takes a metric of the same key, step, time and value once, so
that what was sent when the answer got lost, or before a crash, can be sent again. What MLflow refuses for
what it is would be refused for ever: it is told in a warning, left out, and stays in the journal.
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
"""Seconds in which metrics gather for one call."""
_ANSWER_S = 30
"""Seconds that a store may take for a call: it is a thread's own time."""
_RETRY_S = (1.0, 30.0)
"""The first and the longest wait for a store that is away; each is twice the one before.

The loop is not tenacity's: its wait also gathers events, and ends early where someone flushes or closes.
"""

_log = logging.getLogger("sclip.tracking")


class Sender:
    """Sends a journal to a store from a daemon thread of its own."""

    def __init__(self, journal: Journal, store: Store) -> None:
        """Begin at once where the journal was left."""
        self._journal = journal
        self._store = store
        self._state = threading.Condition()
        self._has_news = True
        self._asked = self._answered = self._batches = 0
        self._closing = self._reached = False
        self._refused: set[str] = set()
        self.trouble = ""
        """Why the store does not take what is told; empty while it does."""
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake the thread: the journal has grown."""
        with self._state:
            self._has_news = True
            self._state.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Wait until all that was told before is sent; False after so many seconds in which nothing was."""
        with self._state:
            self._asked += 1
            self._has_news = True
            self._state.notify_all()
            mine, batches, until = self._asked, self._batches, time.monotonic() + wait_s
            while self._answered < mine:
                if not self._state.wait(until - time.monotonic()) and time.monotonic() >= until:
                    return False
                if self._batches > batches:
                    batches, until = self._batches, time.monotonic() + wait_s
        return True

    def close(self) -> None:
        """End the thread; one that waits for the network ends with the process."""
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
                asked, self._has_news = self._asked, False
            try:
                until = self._journal.size  # not what is told meanwhile: there may be no end to that
                while not self._closing and self._send(until):
                    with self._state:
                        self._batches += 1
                        self._state.notify_all()
            except Exception as error:  # of any library below a store: this thread must outlive them all
                self._warn(error)
                pause, delay = delay, min(2 * delay, _RETRY_S[1])
                with self._state:
                    self._has_news = True
            else:
                if self.trouble:
                    _log.warning("%s takes what the run tells again", mask(self._store.uri))
                self.trouble, pause, delay = "", _GATHER_S, _RETRY_S[0]
                with self._state:
                    self._answered = asked
                    self._state.notify_all()
            self._rest(pause, asked)

    def _rest(self, pause: float, asked: int) -> None:
        """Let events gather, or a store come back, until someone else than the first `asked` waits for it."""
        with self._state:
            if self._asked > self._answered:  # but a store that is away is not asked all the time
                pause = min(pause, _RETRY_S[0])
            self._state.wait_for(lambda: self._closing or self._asked > asked, pause)

    def _warn(self, error: Exception) -> None:
        cause = first_cause(error)
        if cause != self.trouble:
            _log.warning("what the run tells waits on disk for %s: %s", mask(self._store.uri), cause)
        self.trouble = cause

    def _send(self, until: int) -> bool:
        """Send the next batch up to an offset, and behind that the next artifact; False where there is neither."""
        store = mask(self._store.uri)
        with self._journal.alone(), patience(_ANSWER_S):
            sent = self._journal.sent
            if sent.store != store:  # which has nothing of it
                sent = Sent(store)
            batch = first_batch(self._journal, sent.offset) if sent.offset < until else None
            if batch is None and not sent.artifacts:
                return False
            if not self._reached:  # MLflow itself would try a database that is away for a quarter of an hour
                self._store.reach()
                self._reached = True
            if not sent.run_id:
                started_ms = next(event["time_ms"] for _, event in self._journal.read())
                sent = replace(sent, run_id=self._store.open("", started_ms).info.run_id)
                self._journal.sent = sent
            try:
                if batch is None:
                    self._upload(sent)
                    return True
                if "artifact" in batch.events[0]:  # later: trouble with files keeps no metric waiting
                    sent = replace(sent, artifacts=(*sent.artifacts, sent.offset))
                else:
                    self._deliver(sent.run_id, batch.events)
                self._journal.sent = replace(sent, offset=batch.end)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and self._store.find(sent.run_id) is None:
                    self._journal.sent = Sent(store)  # it has lost the run: the whole of it again
                raise
            return True

    def _upload(self, sent: Sent) -> None:
        at, *others = sent.artifacts
        self._journal.sent = replace(sent, artifacts=(*others, at))  # another one first, should this one fail
        _, event = next(self._journal.read(at))
        path = Path(event["artifact"])
        if not path.exists():  # of another machine: what of the run's folder came along with its journal
            path = self._journal.folder / path.name
        if path.exists():
            log = self._store.client.log_artifacts if path.is_dir() else self._store.client.log_artifact
            log(sent.run_id, str(path), event["to"] or None)
        else:
            _log.warning("%s was to be recorded and is not there any more", path)
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
        if "run" in event:  # of whom the journal is
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
