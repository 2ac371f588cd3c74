"""Split the journal into batches that fit one MLflow call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from mlflow.entities import Metric, Param, RunTag

from sclip.tracking.journal import Event, Journal

A_CALL = 100
"""Metrics, params or tags that an event may hold, so that a call can take it."""

_MANY = {"metrics": 500, "params": A_CALL, "tags": A_CALL}
"""What one call takes of several events, and how many of each: MLflow's limits are 1000, 100 and 100."""
_BYTES_A_CALL = 500_000
"""Of the journal; MLflow's limit is 1 MB."""
_TEXT_CHARACTERS = 6000
"""MLflow's limit for the value of a param; tags may have 8000."""


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
        held = self._held + Counter({kind: len(event[kind]) for kind in _MANY if kind in event})
        if self.events:
            alike = all(any(kind in e for kind in _MANY) for e in (self.events[0], event))
            many = any(held[kind] > most for kind, most in _MANY.items())
            if not alike or many or end - self.begin > _BYTES_A_CALL:
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
    for kind in _MANY:
        for name, value in event.get(kind, {}).items():
            yield {k: v for k, v in event.items() if k not in _MANY} | {kind: {name: value}}
    if not any(kind in event for kind in _MANY):
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
        [Param(name, value[:_TEXT_CHARACTERS]) for name, value in params.items()],
        [RunTag(name, value[:_TEXT_CHARACTERS]) for name, value in tags.items()],
    )
