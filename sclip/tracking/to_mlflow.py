"""Send the journal of a run to an MLflow store.

After a lost answer or a crash, events may be sent again: MLflow stores a metric with the same key, step, time and value
once. If MLflow refuses an event as invalid, the event is skipped with a warning and stays in the journal.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from sclip.storage.masking import mask
from sclip.tracking.journal import Event, Journal, Sent
from sclip.tracking.mlflow_batches import entities, first_batch, parts
from sclip.tracking.store import Store, first_cause, patience

_ANSWER_S = 30
"""Seconds that a store may take to answer; only the sender's thread waits for it."""

_log = logging.getLogger("sclip.tracking")


class MLflow:
    """MLflow run of a journal; `tracking.json` records which events the run has."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store
        self._reached = False
        self._refused: set[str] = set()

    @property
    def name(self) -> str:
        """The store's masked address."""
        return mask(self._store.uri)

    def send(self, until: int) -> bool:
        """Send the next batch before offset `until`, else the next artifact; return False if nothing is left."""
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
                    self._journal.sent = Sent(store)  # the store lost the run: send all events again
                raise
            return True

    def _upload(self, sent: Sent) -> None:
        offset, *remaining = sent.artifacts
        self._journal.sent = replace(
            sent, artifacts=(*remaining, offset)
        )  # if this upload fails, try the others first
        _, event = next(self._journal.read(offset))
        path = Path(event["artifact"])
        if not path.exists():  # the event is from another machine: use the file in the run's folder
            path = self._journal.folder / path.name
        if path.exists():
            log = self._store.client.log_artifacts if path.is_dir() else self._store.client.log_artifact
            log(sent.run_id, str(path), event["to"] or None)
        else:
            _log.warning("%s no longer exists, so it was not recorded", path)
        self._journal.sent = replace(sent, artifacts=tuple(remaining))

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
        if "run" in event:  # the journal's head is not for MLflow
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
