"""Make this process the only owner of a run's folder, by a lease file that it renews with regular beats.

    lease/3.json    the owner: token, host, process, start time, and a count that grows with every beat

The owner is the process that created the file with the highest number. To take over from a dead owner, a process
creates the file with the next number. If two processes try this, the storage lets only one of them create the file
(`sclip.storage.paths.create`): a disk (also NFS) by O_EXCL, an object store by conditional writes. There are no locks,
so files that a crash leaves behind block nobody.

In an object store without conditional writes, two processes that start in the same second may both begin. Therefore an
owner ends if it finds the token of another process in its file at a beat.

Clocks of different hosts are never compared: an owner on another host counts as dead if its file did not change for
`EXPIRY_S` while this process watched. For an owner on this machine, the kernel knows whether its process lives.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sclip.config import ConfigError
from sclip.run.stopping import Stopped
from sclip.storage.paths import StoragePath, create, write
from sclip.train.run_folder import LEASE

__all__ = ["EXPIRY_S", "held"]

EXPIRY_S = 30.0
"""Seconds without a beat after which an owner on another machine counts as dead."""
_BEATS = 6  # of an owner in EXPIRY_S

_NUMBERED = re.compile(r"(\d+)\.json")
_log = logging.getLogger("sclip.run")


@contextlib.contextmanager
def held(
    folder: StoragePath, say: Callable[[str], None], lost: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Own the folder of a run or a sweep during the block.

    Args:
        folder: the folder; it need not exist.
        say: called with a line for the user when this process begins to wait for another owner, and when it takes over.
        lost: called with a line for the log when another process has become the owner, in the thread that renews the
            lease. The default ends this process at once.

    Raises ConfigError with host and process of the owner if another live process owns the folder, and OSError if
    storage fails.
    """
    owner = _this_process()
    number = _take(folder, owner, say)
    ended = threading.Event()
    arguments = (folder, number, owner, ended, lost or _end)
    thread = threading.Thread(target=_beat, args=arguments, name="lease", daemon=True)
    thread.start()
    keeps_lease = False
    try:
        yield
    except Stopped as stopped:  # workers may write until this process ends: keep the lease
        keeps_lease = stopped.work_goes_on
        raise
    finally:
        ended.set()
        thread.join(timeout=EXPIRY_S / _BEATS)  # a thread that waits for storage ends with the process
        if not keeps_lease:
            with contextlib.suppress(OSError):
                _remove(folder, number)


def _take(folder: StoragePath, owner: dict[str, Any], say: Callable[[str], None]) -> int:
    """Make this process the owner; return the number of its lease."""
    path = folder / LEASE
    if isinstance(path, Path) and os.path.lexists(path) and not path.is_dir():
        raise ConfigError(
            f"run {folder.name}: {path} is a file, but must be the lease's folder; move the file away"
        )
    while True:
        number, text = _newest(folder)
        if number and not _is_over(folder, number, text, say):
            continue
        with contextlib.suppress(FileExistsError):  # another process's file, or ours if the answer was lost
            create(_file(folder, number + 1), _text(owner))
        newest, text = _newest(folder)
        if newest == number + 1 and _read(text).get("token") == owner["token"]:
            _remove(folder, number)
            return newest


def _is_over(folder: StoragePath, number: int, text: str, say: Callable[[str], None]) -> bool:
    """Return True if the owner is dead, False if the file is gone or replaced; raise ConfigError for a live owner."""
    owner = _read(text)
    if owner.get("machine") and owner["machine"] == _machine():
        is_alive = _is_alive(owner)
        if is_alive:
            raise _refusal(folder, owner)
        if is_alive is False:
            return True
    say(f"run {folder.name}: waiting {EXPIRY_S:g} s for a sign of life from its last process: {_who(owner)}")
    until, pause = time.monotonic() + EXPIRY_S, threading.Event()
    while time.monotonic() < until:
        pause.wait(EXPIRY_S / _BEATS / 2)  # twice as often as the owner beats
        newest, new_text = _newest(folder)
        if newest != number:
            return False
        if new_text != text and owner:
            raise _refusal(folder, _read(new_text))
        text, owner = new_text, _read(new_text)  # the first text may have been half-written
    say(f"run {folder.name}: no sign of life in {EXPIRY_S:g} s, so this process takes it over")
    return True


def _refusal(folder: StoragePath, owner: dict[str, Any]) -> ConfigError:
    return ConfigError(
        f"run {folder.name}: another process runs it: {_who(owner)}; wait for its end, stop it, or name another run"
    )


def _who(owner: dict[str, Any]) -> str:
    return "host {host}, process {pid}, since {since}".format_map(
        dict.fromkeys(("host", "pid", "since"), "?") | owner
    )


def _beat(
    folder: StoragePath,
    number: int,
    owner: dict[str, Any],
    ended: threading.Event,
    lost: Callable[[str], None],
) -> None:
    beats = 0
    while not ended.wait(EXPIRY_S / _BEATS):
        beats += 1
        with contextlib.suppress(OSError):  # the run survives a storage outage; the next beat tries again
            newest, text = _newest(folder)
            entry = _read(text)
            if newest > number or (newest == number and entry.get("token", owner["token"]) != owner["token"]):
                lost(f"run {folder.name}: another process took it over: {_who(entry)}; this process ends")
                return
            write(_file(folder, number), _text(owner | {"beats": beats}))


def _end(line: str) -> None:
    _log.error("%s", line)
    logging.shutdown()
    os._exit(1)


def _file(folder: StoragePath, number: int) -> StoragePath:
    return folder / LEASE / f"{number}.json"


def _numbers(folder: StoragePath) -> list[int]:
    names = (_NUMBERED.fullmatch(path.name) for path in (folder / LEASE).glob("*.json"))
    return sorted(int(name[1]) for name in names if name)


def _newest(folder: StoragePath) -> tuple[int, str]:
    """Return the number and text of the owner's lease file; (0, "") if there is no lease file."""
    while numbers := _numbers(folder):
        with contextlib.suppress(FileNotFoundError):  # the owner ended meanwhile; there may be a new one
            try:
                return numbers[-1], _file(folder, numbers[-1]).read_text()
            except UnicodeDecodeError:
                return numbers[-1], ""
    return 0, ""


def _remove(folder: StoragePath, number: int) -> None:
    """Remove the lease files up to `number`, and the folders of the lease and the run if they are empty."""
    for older in _numbers(folder):
        if older <= number:
            _file(folder, older).unlink(missing_ok=True)
    if isinstance(folder, Path):
        with contextlib.suppress(OSError):  # not empty
            (folder / LEASE).rmdir()
            folder.rmdir()


def _text(owner: dict[str, Any]) -> str:
    return json.dumps(owner, indent=1) + "\n"


def _read(text: str) -> dict[str, Any]:
    """Parse the owner from a lease file's text; return {} if the text is half-written or damaged."""
    try:
        owner = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


# Processes of this machine


def _this_process() -> dict[str, Any]:
    return {
        "token": secrets.token_hex(16), "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
        "started": _started(os.getpid()), "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "beats": 0,
    }  # fmt: skip


def _machine() -> str:
    """Return an id of this boot and PID namespace, in which process ids are unique; "" if the system is not Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; "" if the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """Return whether an owner's process on this machine lives; None means unknown."""
    pid = owner.get("pid")
    if type(pid) is not int or not 0 < pid < 2**31:
        return None
    is_same = _started(pid) == str(owner.get("started"))  # else another process now has this id
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process, which /proc may hide
        return is_same or None
    return is_same
