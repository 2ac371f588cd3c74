"""Folders on this node's own disk, below TMPDIR, for what is on its way to an object store or from it.

`own` is a process's alone and goes with it, also where it was killed: the next one that asks finds its lock released.
`common` is filled once for all processes that name it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_OWN = "own-"


@contextlib.contextmanager
def own() -> Iterator[Path]:
    """Give an empty folder until the end of the block; what killed processes left goes first."""
    root = _root()
    with contextlib.ExitStack() as stack:
        with FileLock(root / "own.lock"):
            for left in root.glob(f"{_OWN}*.lock"):
                with contextlib.suppress(Timeout), FileLock(left, blocking=False):
                    remove(left.with_suffix(""))
            folder = Path(tempfile.mkdtemp(prefix=_OWN, dir=root))
            stack.enter_context(FileLock(folder.with_suffix(".lock")))
        stack.callback(remove, folder)
        yield folder


def common(name: str, fill: Callable[[Path], None]) -> Path:
    """Return this node's folder of a name, which the first process that asks for it fills."""
    root = _root()
    folder = root / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with own() as partial:
                fill(partial)
                partial.rename(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove what `own` or `common` gave, and its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _root() -> Path:
    """Return the folder of all of this user. Raises PermissionError where another user made it."""
    root = Path(tempfile.gettempdir()) / f"sclip-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root}: of another user; set TMPDIR to a folder of your own")
    return root
