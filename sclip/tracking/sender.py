"""The journal of a run in, the same in an MLflow store out: one thread that sends, and tries again while it must.

Events go in their order, many metrics a call. The store takes a metric of the same key, step, time and value once, so
that what was sent when the answer got lost, or before a crash, can be sent again. An event that MLflow refuses for
what it is would be refused for ever: it is told in a warning, left out, and stays in the journal.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from sclip.masking import mask
from sclip.tracking.journal import Event, Journal, Sent
from sclip.tracking.store import Store, first_cause, patience

A_CALL = 100
"""Metrics, params or tags that an event may hold, so that a call can take it."""

_MANY = {"metrics": 500, "params": A_CALL, "tags": A_CALL}
"""What one call takes of several events, and how many of each: MLflow's limits are 1000, 100 and 100."""
_TEXT_CHARACTERS = 6000
"""MLflow's limit for the value of a param; tags may have 8000."""
_GATHER_S = 1.0
"""Seconds in which metrics gather for one call."""
_ANSWER_S = 30
"""Seconds that a store may take for a call: it is a thread's own time."""
_RETRY_S = (1.0, 30.0)
"""The first and the longest wait for a store that is away; each is twice the one before."""

_log = logging.getLogger("sclip.tracking")


@dataclass
class Batch:
    """Neighbouring events that one call takes, or a single one of another kind."""

    end: int = 0
    """Offset behind its last event."""
    events: list[Event] = field(default_factory=list)

    def takes(self, event: Event) -> bool:
        """Whether an event fits into the call as well."""
        if not self.events:
            return True
        if not all(any(kind in e for kind in _MANY) for e in (self.events[0], event)):
            return False
        return all(
            sum(len(e.get(kind, ())) for e in (*self.events, event)) <= most for kind, most in _MANY.items()
        )


class Sender:
    """Sends a journal to a store from a daemon thread of its own."""

    def __init__(self, journal: Journal, store: Store) -> None:
        """Begin at once where the journal was left."""
        self._journal = journal
        self._store = store
        self._state = threading.Condition()
        self._told = True
        self._asked = self._answered = self._batches = 0
        self._closing = False
        self.trouble = ""
        """Why the store does not take what is told; empty while it does."""
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def told(self) -> None:
        """Take notice that the journal has grown."""
        with self._state:
            self._told = True
            self._state.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Wait until all that was told before is sent; False after so many seconds in which nothing was."""
        with self._state:
            self._asked += 1
            self._told = True
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
                self._state.wait_for(lambda: self._told or self._closing)
                if self._closing:
                    return
                asked, self._told = self._asked, False
            try:
                until = self._journal.size  # not what is told meanwhile: there may be no end to that
                while not self._closing and self._send(until):
                    with self._state:
                        self._batches += 1
                        self._state.notify_all()
            except (
                Exception
            ) as error:  # each kind of store has errors of its own, and this thread must outlive them
                self._warn(error)
                pause, delay = delay, min(2 * delay, _RETRY_S[1])
                with self._state:
                    self._told = True
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
            batch = next(_batches(self._journal, sent.offset), None) if sent.offset < until else None
            if batch is None and not sent.artifacts:
                return False
            if not sent.run_id:
                started_ms = next(event["time_ms"] for _, event in self._journal.read())
                sent = replace(sent, run_id=self._store.open("", started_ms).info.run_id)
                self._journal.sent = sent
            try:
                if batch is None:
                    self._upload(sent)
                    return True
                if (
                    "artifact" in batch.events[0]
                ):  # later: what ails a storage of files keeps no metric waiting
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
        self._journal.sent = replace(
            sent, artifacts=(*others, at)
        )  # the next time another one, should this one fail
        _, event = next(self._journal.read(at))
        path = Path(event["artifact"])
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
            parts = events if len(events) > 1 else list(_parts(events[0]))
            if len(parts) > 1:
                for part in parts:
                    self._deliver(run_id, [part])
            else:
                text = mask(json.dumps(events[0], ensure_ascii=False))[:300]
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
            client.log_batch(run_id, *_entities(events))


def _batches(journal: Journal, offset: int) -> Iterator[Batch]:
    batch = Batch(offset)
    for end, event in journal.read(offset):
        if not batch.takes(event):
            yield batch
            batch = Batch(offset)
        batch.events.append(event)
        batch.end = end
    if batch.events:
        yield batch


def _parts(event: Event) -> Iterator[Event]:
    """Yield an event for each metric, param and tag of one, and any other event as it is."""
    for kind in _MANY:
        for name, value in event.get(kind, {}).items():
            yield {k: v for k, v in event.items() if k not in _MANY} | {kind: {name: value}}
    if not any(kind in event for kind in _MANY):
        yield event


def _entities(events: list[Event]) -> tuple[list[Metric], list[Param], list[RunTag]]:
    metrics = [
        Metric(name, value, event["time_ms"], event["step"])
        for event in events
        for name, value in event.get("metrics", {}).items()
    ]
    params = {name: value for event in events for name, value in event.get("params", {}).items()}
    tags = {name: value for event in events for name, value in event.get("tags", {}).items()}
    return (
        metrics,
        [Param(name, value[:_TEXT_CHARACTERS]) for name, value in params.items()],
        [RunTag(name, value[:_TEXT_CHARACTERS]) for name, value in tags.items()],
    )
