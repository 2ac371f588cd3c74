"""Record a run: write events to the run's journal at once; senders send them to MLflow and other destinations.

Passwords in the events are masked. Only one process, the driver, writes the record of a run.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlflow import MlflowClient
from mlflow.entities import RunData
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID

from sclip.config import Config
from sclip.config.loader import flatten, to_tree
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, send, shown
from sclip.tracking import system
from sclip.tracking.also import EVENT_FILE, destinations
from sclip.tracking.journal import JOURNAL, SENT, Event, Journal
from sclip.tracking.mlflow_batches import PER_EVENT
from sclip.tracking.sender import Sender
from sclip.tracking.store import Store
from sclip.tracking.to_mlflow import MLflow

_FINISH_S = 30.0
"""Seconds without progress after which an ending run stops sending; the remaining events stay on disk."""
_OFFLINE_S = 5.0
"""The limit in place of `_FINISH_S` if no answer is expected, or if the run ends in a hurry."""

_V = TypeVar("_V")
_log = logging.getLogger("sclip.tracking")


class Tracker:
    """Record of one run, made by `open_run`. Many threads of one process may use it."""

    def __init__(self, journal: Journal, store: Store, home: StoragePath) -> None:
        """Continue a journal, and send the events that the store does not have; `home` is the run's own folder."""
        self._journal = journal
        self._home = home
        self._store = store
        self._lock = threading.Lock()
        self._steps: dict[str, int] = {}
        self._params: set[str] = set()
        self._tags: dict[str, str] = {}
        self._datasets: list[Event] = []
        self._away = self._in_a_hurry = self._closed = False
        for _, event in journal.read():
            self._steps |= dict.fromkeys(event.get("metrics", ()), event.get("step", 0))
            self._params |= set(event.get("params", ()))
            self._tags |= event.get("tags", {})
            self._datasets += [event["dataset"]] if "dataset" in event else []
        self._sampler: system.Sampler | None = None
        self._sender = Sender(journal, MLflow(journal, store))
        self._others: list[Sender] = []

    @property
    def uri(self) -> str:
        """The store's address, including credentials; `mask` it before showing it."""
        return self._store.uri

    @property
    def folder(self) -> Path:
        """The journal's local folder; it is the run's own folder unless the run's storage is a URI."""
        return self._journal.folder

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of the store."""
        return self._store.client

    @property
    def run_id(self) -> str:
        """Id of the MLflow run; "" until a store has the run (`tracking.offline`)."""
        return self._journal.sent.run_id

    def log(self, metrics: Mapping[str, float], step: int, tags: Mapping[str, str] | None = None) -> None:
        """Record metrics at a step, and tags; never wait for a network, never raise.

        A metric that already has a value at this step or a later step is skipped. A tag keeps its last value.
        """
        with self._lock:
            # After a restart, some steps are trained again; the curve keeps their first values.
            new = {k: float(v) for k, v in metrics.items() if step > self._steps.get(k, -1)}
            self._steps |= dict.fromkeys(new, step)
        events: list[Event] = [{"metrics": part, "step": step} for part in _parts(new)]
        self._tell([*events, *self._tag_events({k: v for k, v in (tags or {}).items() if v})])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._tell([*self._tag_events(tags)])

    def log_dataset(
        self, name: str, digest: str, source: Sequence[str], profile: Mapping[str, Any], context: str
    ) -> None:
        """Record a dataset that the run reads, as an MLflow dataset input.

        `digest` has up to 36 characters, `source` holds paths or URIs, and `profile` facts such as counts and versions.
        `context` is the dataset's role in the run, such as "training".
        """
        shown = json.dumps({"uris": [mask(uri)[:500] for uri in source][:100]})  # MLflow takes 64 kB
        dataset = {
            "name": mask(name)[:500], "digest": digest[:36], "source_type": "shards", "source": shown,
            "profile": mask(json.dumps(dict(profile), sort_keys=True)),
        }  # fmt: skip
        if dataset not in self._datasets:
            self._datasets.append(dataset)
            self._tell([{"dataset": dataset, "context": context}])

    def log_artifact(self, path: Path | str, artifact_path: str = "") -> None:
        """Record a file or folder, which must stay there; `artifact_path` is the folder among the run's artifacts."""
        self._tell([{"artifact": str(Path(path).absolute()), "to": artifact_path}])

    def keep(self) -> None:
        """Copy the journal, `tracking.json` and TensorBoard's file to a remote run folder; a failure is only logged."""
        try:
            # Copy SENT first: the journal may grow meanwhile, and SENT must not count lines that the copy lacks.
            for name in (SENT, JOURNAL, EVENT_FILE):
                send(self.folder, self._home, [name] if (self.folder / name).exists() else [])
        except OSError as error:
            _log.warning("%s; the record of the run stays in %s until it can be copied", error, self.folder)

    def flush(self) -> bool:
        """Wait until MLflow has all events; return False after 30 s without progress (5 s if no answer is expected)."""
        self._away = not self._sender.flush(_OFFLINE_S if self._away or not self.run_id else _FINISH_S)
        return not self._away

    def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", in_a_hurry: bool = False
    ) -> str:
        """Set the run's status, send the remaining events and close; `in_a_hurry` shortens the wait.

        Return one line that says how to send the events that stay on disk; "" if all events were sent.
        """
        if self._closed:
            return ""
        if self._sampler:
            self._sampler.close()
        self._tell([{"status": status}])
        self._away = self._away or in_a_hurry
        self._in_a_hurry = in_a_hurry
        return self.close()

    def close(self) -> str:
        """Send the remaining events and close without setting a status. Return the same line as `finish`."""
        self._closed = True
        unfinished = [] if self.flush() else [self._sender]
        unfinished += [
            sender for sender in self._others
            if not sender.flush(_OFFLINE_S if self._in_a_hurry or sender.trouble else _FINISH_S)
        ]  # fmt: skip
        for sender in (self._sender, *self._others):
            sender.close()
        self._journal.close()
        self.keep()
        if not unfinished:
            return ""
        names = " and ".join(sender.name for sender in unfinished)
        troubles = "; ".join(sender.trouble for sender in unfinished if sender.trouble)
        return (
            f"not all events of the run were sent to {names}{troubles and f' ({troubles})'}; they are kept in "
            f"{self._home / JOURNAL}: sclip sync {shown(self._home)}"
        )

    def follow(self, also: Sequence[str], project: str) -> None:
        """Send metrics also to the destinations named in `also`; these get earlier metrics too."""
        self._others += [Sender(self._journal, to) for to in destinations(also, self._journal, project)]

    def begin(
        self,
        config: Config,
        known: RunData | None,
        params: Mapping[str, str] | None = None,
        also: Sequence[str] = (),
    ) -> None:
        """Record the config and the status RUNNING, and start to sample this machine's load.

        `params`, if set, are recorded instead of the config. `known` holds the metrics and params that the store
        already has; None means that the store was not reached. `also` names the destinations in addition to MLflow.
        """
        if known:  # only RunData's protobuf form has the steps of metrics
            steps = {metric.key: metric.step for metric in known.to_proto().metrics}
            self._steps |= {name: max(step, self._steps.get(name, -1)) for name, step in steps.items()}
            self._params |= set(known.params)
        tags = {MLFLOW_PARENT_RUN_ID: config.tracking.parent}
        if not self._tags:
            tags[MLFLOW_GIT_COMMIT] = _git_commit()
        all_params = params or flatten(to_tree(config))
        # MLflow refuses a second value of a param.
        new = {key: mask(str(value)) for key, value in all_params.items() if key not in self._params}
        self._tell(
            [
                *self._tag_events({k: v for k, v in tags.items() if v and self._tags.get(k) != v}),
                *({"params": part} for part in _parts(new)),
                {"status": "RUNNING", "also": list(also)},
            ]
        )
        self.follow(also, config.tracking.experiment)
        step = max((s for name, s in self._steps.items() if name.startswith(system.PREFIX)), default=-1) + 1
        self._sampler = system.Sampler(self.log, step)
        self.keep()

    def _tag_events(self, tags: Mapping[str, str]) -> Iterable[Event]:
        return ({"tags": part} for part in _parts({name: mask(str(text)) for name, text in tags.items()}))

    def _tell(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                self._journal.append(event | {"time_ms": int(time.time() * 1000)})
        except OSError as error:
            _log.warning(
                "%s: %s; %d events were not recorded", self._journal.folder / JOURNAL, error, len(events)
            )
        if events:
            for sender in (self._sender, *self._others):
                sender.notify()


def _parts(entities: Mapping[str, _V]) -> Iterator[dict[str, _V]]:
    names = list(entities)
    for start in range(0, len(names), PER_EVENT):
        yield {name: entities[name] for name in names[start : start + PER_EVENT]}


def _git_commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return ""
