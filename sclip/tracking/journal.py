"""Keep a run's events in order in `tracking.jsonl`; `tracking.json` records which of them MLflow's store has.

Each event is one appended line. A process that dies loses no complete line and leaves at most one torn line, which
readers skip. `tracking.json` holds the fields of `Sent`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sclip.storage.paths import StoragePath, storage_path, write

JOURNAL = "tracking.jsonl"
SENT = "tracking.json"

Event = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """Record of the journal's events that MLflow's store already has."""

    store: str = ""
    """The store's masked address."""
    run_id: str = ""
    """The MLflow run in the store; "" if the store has none yet."""
    offset: int = 0
    """Byte offset in the journal. The store has all events before it, except those in `artifacts`."""
    artifacts: tuple[int, ...] = ()
    """Byte offsets of events whose files (artifacts) are not uploaded yet."""


class Journal:
    """Journal of one run, open for appending. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Open the journal in `folder`; create what is missing. Raises OSError if the folder is not writable."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._file = (folder / JOURNAL).open("ab", buffering=0)
        self._torn = self._file.tell() > 0  # an earlier process may have died while writing a line

    def append(self, event: Event) -> None:
        """Append an event, which then survives a crash of the process. Raises OSError if the disk is full or fails."""
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._torn:
                line = b"\n" + line
            self._torn = True
            while line:
                line = line[self._file.write(line) :]
            self._torn = False

    def read(self, offset: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield each event from `offset` on, as (offset after the event, event)."""
        return _read(self.folder / JOURNAL, offset)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return (self.folder / JOURNAL).stat().st_size

    @property
    def sent(self) -> Sent:
        """Record of the events that a store has; an empty `Sent` if `tracking.json` is missing or broken."""
        try:
            fields = json.loads((self.folder / SENT).read_text())
            sent = Sent(**fields | {"artifacts": tuple(fields["artifacts"])})
        except (OSError, ValueError, TypeError, LookupError):
            return Sent()
        return sent if sent.offset <= self.size else Sent(sent.store, sent.run_id)

    @sent.setter
    def sent(self, sent: Sent) -> None:
        os.fsync(self._file.fileno())  # so that no line before `sent.offset` can be lost
        write(self.folder / SENT, json.dumps(asdict(sent)) + "\n")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the journal's lock during the block, so that no other process or thread sends the journal."""
        with (self.folder / JOURNAL).open("ab") as file:  # filelock would add a lock file to the run's folder
            # OSError: the file system has no locks. Two senders do no harm, as MLflow stores a repeated batch once.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def history(run_folder: str | StoragePath) -> dict[str, list[tuple[int, float]]]:
    """Read each metric's curve from a run's journal, as (step, value) sorted by step; {} without a journal."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for _, event in _read(storage_path(run_folder) / JOURNAL, 0):
        for name, value in event.get("metrics", {}).items():
            curves.setdefault(name, []).append((event["step"], value))
    return {name: sorted(curve, key=lambda point: point[0]) for name, curve in curves.items()}


def _read(path: StoragePath, offset: int) -> Iterator[tuple[int, Event]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):  # still being written
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):  # empty, or torn by a process that died
                continue
            if isinstance(event, dict):
                yield offset, event
