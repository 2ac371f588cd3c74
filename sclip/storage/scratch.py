"""Create temporary folders on this node's disk, below TMPDIR, for files on their way to or from an object store.

`own` yields a folder for one process. If the process is killed, the next call of `own` in any process removes the
folder. `common` returns a folder that is filled once for all processes of the node.
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
    """Yield an empty folder, which is removed after the block. Also removes the folders of killed processes."""
    root = _root()
    with contextlib.ExitStack() as stack:
        with FileLock(root / "own.lock"):
            for lock in root.glob(f"{_OWN}*.lock"):  # a killed process holds no lock any more
                with contextlib.suppress(Timeout), FileLock(lock, blocking=False):
                    remove(lock.with_suffix(""))
            folder = Path(tempfile.mkdtemp(prefix=_OWN, dir=root))
            stack.enter_context(FileLock(folder.with_suffix(".lock")))
        stack.callback(remove, folder)
        yield folder


def common(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder `name` of this node. The first process that asks for the folder fills it with `fill`."""
    root = _root()
    folder = root / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with own() as partial:
                fill(partial)
                partial.rename(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder that `own` or `common` made, and the lock of this folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _root() -> Path:
    root = Path(tempfile.gettempdir()) / f"sclip-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root}: belongs to another user; set TMPDIR to a folder of your own")
    return root
