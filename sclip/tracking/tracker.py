"""What a run tells, in: masked, to its journal at once, and from there to MLflow and others, each by its sender.

One process writes a run, the driver.
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
"""Seconds without any progress after which what is left stays on disk at the end of a run."""
_OFFLINE_S = 5.0
"""The same where nothing says that the store will come."""

_V = TypeVar("_V")
_log = logging.getLogger("sclip.tracking")


class Tracker:
    """The record of one run; `open_run` makes it. Its threads may be many, its process is one."""

    def __init__(self, journal: Journal, store: Store, home: StoragePath) -> None:
        """Go on with a journal, and send what of it the store has not; `home` is the run's folder."""
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
        """The store, with credentials where it has any; `mask` it before it is shown."""
        return self._store.uri

    @property
    def folder(self) -> Path:
        """The folder of the journal: of this machine, and for a run on a disk the run's own."""
        return self._journal.folder

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of the store."""
        return self._store.client

    @property
    def run_id(self) -> str:
        """The MLflow run; empty as long as no store has it (`tracking.offline`)."""
        return self._journal.sent.run_id

    def log(self, metrics: Mapping[str, float], step: int, tags: Mapping[str, str] | None = None) -> None:
        """Record metrics at a step, and tags, of which the last value stays.

        A metric that already has this step or a later one is not recorded again. That is the case after a restart
        from a checkpoint: the steps since then are trained again, and the curve keeps the values of the first time.
        Never waits for a network and never raises.
        """
        with self._lock:
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

        Args:
            name: what people call it.
            digest: up to 36 characters that differ where the data does.
            source: its paths or URIs.
            profile: what is to be known of it: counts, versions.
            context: what the run does with it, such as "training".
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
        """Record a file or a folder by its path; it is read when it is sent, so it has to stay there.

        `artifact_path` is the folder of the run's artifacts that it goes to.
        """
        self._tell([{"artifact": str(Path(path).absolute()), "to": artifact_path}])

    def keep(self) -> None:
        """Bring the journal into the run's folder, where that is no folder of this machine; a failure is told only."""
        try:
            # Not ahead of the lines that it counts, which may grow meanwhile.
            for name in (SENT, JOURNAL, EVENT_FILE):
                send(self.folder, self._home, [name] if (self.folder / name).exists() else [])
        except OSError as error:
            _log.warning(
                "%s; the record of the run stays in %s until it can be kept there", error, self.folder
            )

    def flush(self) -> bool:
        """Wait until all that was told is in the store; False after half a minute without any progress.

        Sooner where the last call ended so, or no store has ever had the run.
        """
        self._away = not self._sender.flush(_OFFLINE_S if self._away or not self.run_id else _FINISH_S)
        return not self._away

    def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", in_a_hurry: bool = False
    ) -> str:
        """Close the run, and send what is left; in a hurry, as to a store that never answered.

        Return one line where some stays on disk, and how it is sent.
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
        """As `finish`, and leave the status of the run as it is."""
        self._closed = True
        left = [] if self.flush() else [self._sender]
        left += [
            sender for sender in self._others
            if not sender.flush(_OFFLINE_S if self._in_a_hurry or sender.trouble else _FINISH_S)
        ]  # fmt: skip
        for sender in (self._sender, *self._others):
            sender.close()
        self._journal.close()
        self.keep()
        if not left:
            return ""
        names = " and ".join(sender.name for sender in left)
        troubles = "; ".join(sender.trouble for sender in left if sender.trouble)
        return (
            f"{names} does not take what the run told{troubles and f' ({troubles})'}; it is kept in "
            f"{self._home / JOURNAL}: sclip sync {shown(self._home)}"
        )

    def follow(self, also: Sequence[str], project: str) -> None:
        """Bring the metrics from now on to these too (`tracking.also`), and those of earlier starts that they lack."""
        self._others += [Sender(self._journal, to) for to in destinations(also, self._journal, project)]

    def begin(
        self,
        config: Config,
        known: RunData | None,
        params: Mapping[str, str] | None = None,
        also: Sequence[str] = (),
    ) -> None:
        """Record the config and that the run goes on, and watch this machine; for `open_run`.

        `params` are recorded in place of the config's. `also` names what gets the metrics beside MLflow.
        What is `known` in the store and not in the journal, which may have been lost, counts as told. Params stay as
        they were first, as MLflow wants it.
        """
        if known:  # its dictionary of metrics has values only, its wire form steps too
            found = {metric.key: metric.step for metric in known.to_proto().metrics}
            self._steps |= {name: max(step, self._steps.get(name, -1)) for name, step in found.items()}
            self._params |= set(known.params)
        tags = {MLFLOW_PARENT_RUN_ID: config.tracking.parent}
        if not self._tags:
            tags[MLFLOW_GIT_COMMIT] = _git_commit()
        told = params or flatten(to_tree(config))
        new = {key: mask(str(value)) for key, value in told.items() if key not in self._params}
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
                "%s: %s; not recorded: %d events", self._journal.folder / JOURNAL, error, len(events)
            )
        if events:
            for sender in (self._sender, *self._others):
                sender.notify()


def _parts(entities: Mapping[str, _V]) -> Iterator[dict[str, _V]]:
    """Yield as many at a time as a call takes."""
    names = list(entities)
    for start in range(0, len(names), PER_EVENT):
        yield {name: entities[name] for name in names[start : start + PER_EVENT]}


def _git_commit() -> str:
    """Return the commit that this file is tracked in; empty for an installed package or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return ""
