"""Split the journal into batches that fit one MLflow call (`log_batch`); `sclip.tracking.sender` sends them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.validation import (
    MAX_BATCH_LOG_REQUEST_SIZE,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
)

from sclip.tracking.journal import Event, Journal

PER_EVENT = MAX_PARAMS_TAGS_PER_BATCH
"""Metrics, params or tags that an event may hold, so that a call can take it."""

_PER_CALL = {"metrics": MAX_METRICS_PER_BATCH // 2, "params": PER_EVENT, "tags": PER_EVENT}
"""How many entities of several events one call takes; all together stay below MLflow's limit of 1000."""
_BYTES_PER_CALL = MAX_BATCH_LOG_REQUEST_SIZE // 2
"""Bytes of the journal; the same events are longer in MLflow's request."""


@dataclass
class EventBatch:
    """Neighbouring events that one call takes, or a single one of another kind."""

    begin: int
    """Offset of its first event."""
    end: int = 0
    """Offset behind its last event."""
    events: list[Event] = field(default_factory=list)
    _held: Counter[str] = field(default_factory=Counter)

    def add(self, event: Event, end: int) -> bool:
        """Add an event, unless the call cannot take it as well."""
        held = self._held + Counter({kind: len(event[kind]) for kind in _PER_CALL if kind in event})
        if self.events:
            alike = all(any(kind in e for kind in _PER_CALL) for e in (self.events[0], event))
            many = any(held[kind] > most for kind, most in _PER_CALL.items())
            if not alike or many or end - self.begin > _BYTES_PER_CALL:
                return False
        self.events.append(event)
        self.end, self._held = end, held
        return True


def first_batch(journal: Journal, offset: int) -> EventBatch | None:
    """Return the first batch from an offset on."""
    batch = EventBatch(offset)
    for end, event in journal.read(offset):
        if not batch.add(event, end):
            break
    return batch if batch.events else None


def parts(event: Event) -> Iterator[Event]:
    """Yield an event for each metric, param and tag of one, and any other event as it is."""
    for kind in _PER_CALL:
        for name, value in event.get(kind, {}).items():
            yield {k: v for k, v in event.items() if k not in _PER_CALL} | {kind: {name: value}}
    if not any(kind in event for kind in _PER_CALL):
        yield event


def entities(events: list[Event], without: Container[str]) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """Return the arguments of MLflow's `log_batch`, without some metrics; of each tag the last value."""
    metrics = [
        Metric(name, value, event["time_ms"], event["step"])
        for event in events
        for name, value in event.get("metrics", {}).items()
        if name not in without
    ]
    params = {name: value for event in events for name, value in event.get("params", {}).items()}
    tags = {name: value for event in events for name, value in event.get("tags", {}).items()}
    return (
        metrics,
        [Param(name, value[:MAX_PARAM_VAL_LENGTH]) for name, value in params.items()],
        [RunTag(name, value[:MAX_PARAM_VAL_LENGTH]) for name, value in tags.items()],
    )
