"""What a run tells, in, as lines of `tracking.jsonl`; the same events in their order out, and how far they were sent.

Lines are only ever appended, each with one write, so that the death of a process at any moment loses none that was
told and leaves at most one torn line, which readers pass over. How far a store has them stands beside, in
`tracking.json`: its address without secrets, the MLflow run there, and the offset in bytes behind the last line sent.
It is written after the lines are on the disk, hence never ahead of them, also where the machine fails.
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

from sclip.storage.paths import StoragePath, storage_path

JOURNAL = "tracking.jsonl"
SENT = "tracking.json"

Event = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """How far a store has the journal."""

    store: str = ""
    """Its address, masked."""
    run_id: str = ""
    """The MLflow run there; empty while there is none."""
    offset: int = 0
    """Bytes of the journal that it has."""
    artifacts: tuple[int, ...] = ()
    """Offsets below that of artifacts that it has not."""


class Journal:
    """The journal of one run, open for appending; safe to be used by several threads."""

    def __init__(self, folder: Path) -> None:
        """Open the journal in `folder`, both made where they are missing. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._file = (folder / JOURNAL).open("ab", buffering=0)
        self._torn = not _ends_whole(folder / JOURNAL)

    def append(self, event: Event) -> None:
        """Add an event; it outlives this process once this returns. Raises OSError where the disk takes none."""
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._torn:
                line = b"\n" + line
            self._torn = True
            while line:
                line = line[self._file.write(line) :]
            self._torn = False

    def read(self, offset: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield the whole lines from an offset on, each with the offset behind it."""
        return _read(self.folder / JOURNAL, offset)

    @property
    def size(self) -> int:
        """Bytes told so far."""
        return (self.folder / JOURNAL).stat().st_size

    @property
    def sent(self) -> Sent:
        """How far a store has it; nothing of it where that is not known."""
        try:
            found = json.loads((self.folder / SENT).read_text())
            sent = Sent(**found | {"artifacts": tuple(found["artifacts"])})
        except (OSError, ValueError, TypeError, LookupError):
            return Sent()
        return sent if sent.offset <= self.size else Sent(sent.store, sent.run_id)

    @sent.setter
    def sent(self, sent: Sent) -> None:
        os.fsync(self._file.fileno())
        partial = self.folder / f".{SENT}.{os.getpid()}"
        with partial.open("w") as file:
            file.write(json.dumps(asdict(sent)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / SENT)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process or thread sends this journal, and keep them waiting.

        Not filelock's: the lock is the journal itself, so that no other file stands in the run's folder.
        """
        with (self.folder / JOURNAL).open("ab") as file:
            # A file system without locks raises OSError: a batch that is sent twice is stored once.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """Close the file; nothing can be appended afterwards."""
        self._file.close()


def history(run_folder: str | StoragePath) -> dict[str, list[tuple[int, float]]]:
    """Return the curve of each metric of a run, (step, value) by step, from its journal alone; {} without one."""
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
            if not line.endswith(b"\n"):  # being written
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):  # torn by the end of a process
                continue
            if isinstance(event, dict):
                yield offset, event


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
