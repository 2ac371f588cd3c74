"""Split the journal into batches that fit one MLflow call (`log_batch`); `sclip.tracking.to_mlflow` sends them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.validation import (
    MAX_BATCH_LOG_REQUEST_SIZE,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
)

from sclip.tracking.journal import Event, Journal

PER_EVENT = MAX_PARAMS_TAGS_PER_BATCH
"""Maximum metrics, params or tags in one event, so that the event fits one call."""

_PER_CALL = {"metrics": MAX_METRICS_PER_BATCH // 2, "params": PER_EVENT, "tags": PER_EVENT}
"""Maximum metrics, params and tags in one call; their sum stays below MLflow's limit of 1000 entities."""
_BYTES_PER_CALL = MAX_BATCH_LOG_REQUEST_SIZE // 2
"""Maximum bytes of journal events in one call: half of MLflow's limit, because a request is longer than its events."""


def first_batch(journal: Journal, offset: int) -> tuple[list[Event], int]:
    """Return the events from an offset on that fit one call, and the offset after them.

    Events with metrics, params and tags share a batch; an event of any other kind is a batch of its own.
    """
    events, counts, end = list[Event](), Counter[str](), offset
    for next_end, event in journal.read(offset):
        counts.update({kind: len(event[kind]) for kind in _PER_CALL if kind in event})
        if events and (
            not all(_PER_CALL.keys() & e.keys() for e in (events[0], event))
            or any(counts[kind] > limit for kind, limit in _PER_CALL.items())
            or next_end - offset > _BYTES_PER_CALL
        ):
            break
        events.append(event)
        end = next_end
    return events, end


def parts(event: Event) -> Iterator[Event]:
    """Split an event into one event for each metric, param and tag; yield any other event unchanged."""
    for kind in _PER_CALL:
        for name, value in event.get(kind, {}).items():
            yield {k: v for k, v in event.items() if k not in _PER_CALL} | {kind: {name: value}}
    if not _PER_CALL.keys() & event.keys():
        yield event


def entities(events: list[Event], without: Container[str]) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """Return arguments of `log_batch`, except metrics in `without`. Repeated params and tags keep the last value."""
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
