"""A run's folder in, this process as its one owner out: a lease that is renewed, and that others respect or take over.

    lease/3.json    the owner: token, host, process, since when, and a count that grows with every beat

The owner is who made the file of the highest number. Two that take over from the same owner both try to make the next
number, and storage itself lets one of them (`sclip.storage.paths.create`): O_EXCL on a disk, NFS included, and
conditional writes in object stores. Only the owner writes its own file afterwards, so nothing is locked, and nothing
that a crash leaves stands in the way. Where an object store has no conditional writes, two that start in the same
second may both begin; each looks at every beat whether the file is still its own, and the one that was written over
ends.

No clock is compared with that of another host: an owner that cannot be looked up here is dead when its file did not
change for `EXPIRY_S` while the other watched. Of a process of this machine the kernel knows whether it lives.
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
_BEATS = 6
"""Beats, and looks at the lease of another, within that time."""

_NUMBERED = re.compile(r"(\d+)\.json")
_log = logging.getLogger("sclip.run")


@contextlib.contextmanager
def held(
    folder: StoragePath, say: Callable[[str], None], lost: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Own the folder of a run or a sweep during the block.

    Args:
        folder: the folder, which need not be there.
        say: told in a line that this waits for a sign of life of another owner.
        lost: called in a thread with a line once another process is the owner. By default it ends this process on the
            spot: the folder and the record in MLflow are not its own any more.

    Raises ConfigError, which says where the run lives, while another process is the owner; OSError where storage fails.
    """
    owner = _this_process()
    number = _take(folder, owner, say)
    ended = threading.Event()
    arguments = (folder, number, owner, ended, lost or _end)
    thread = threading.Thread(target=_beat, args=arguments, name="lease", daemon=True)
    thread.start()
    goes_on = False
    try:
        yield
    except Stopped as stopped:  # until this process is gone its workers may write: the lease stays
        goes_on = stopped.work_goes_on
        raise
    finally:
        ended.set()
        thread.join(timeout=EXPIRY_S / _BEATS)  # one that waits for storage ends with the process
        if not goes_on:
            with contextlib.suppress(OSError):
                _remove(folder, number)


def _take(folder: StoragePath, owner: dict[str, Any], say: Callable[[str], None]) -> int:
    """Make this process the owner; return the number of its lease."""
    place = folder / LEASE
    if isinstance(place, Path) and os.path.lexists(place) and not place.is_dir():
        raise ConfigError(
            f"run {folder.name}: {place} is a file, where the lease's folder belongs; move it away"
        )
    while True:
        number, text = _newest(folder)
        if number and not _is_over(folder, number, text, say):
            continue
        with contextlib.suppress(FileExistsError):  # of another, or of a try whose answer was lost
            create(_file(folder, number + 1), _text(owner))
        newest, text = _newest(folder)
        if newest == number + 1 and _read(text).get("token") == owner["token"]:
            _remove(folder, number)
            return newest


def _is_over(folder: StoragePath, number: int, text: str, say: Callable[[str], None]) -> bool:
    """Return whether the owner is dead; False where its lease went or became another's meanwhile.

    Raises ConfigError while it lives.
    """
    owner = _read(text)
    if owner.get("machine") and owner["machine"] == _machine():
        is_alive = _is_alive(owner)
        if is_alive:
            raise _refusal(folder, owner)
        if is_alive is False:
            return True
    say(f"run {folder.name}: waiting {EXPIRY_S:g} s for a sign of life of what ran it last: {_who(owner)}")
    until, pause = time.monotonic() + EXPIRY_S, threading.Event()
    while time.monotonic() < until:
        pause.wait(EXPIRY_S / _BEATS / 2)
        newest, now = _newest(folder)
        if newest != number:
            return False
        if now != text and owner:
            raise _refusal(folder, _read(now))
        text, owner = now, _read(now)  # that was read half-written before
    say(f"run {folder.name}: no sign of life in {EXPIRY_S:g} s, so this process goes on with it")
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
    """Renew the lease until the end, or until it is another's."""
    beats = 0
    while not ended.wait(EXPIRY_S / _BEATS):
        beats += 1
        with contextlib.suppress(OSError):  # storage that is away ends no run: the next beat will do
            newest, text = _newest(folder)
            other = _read(text)
            if newest > number or (newest == number and other.get("token", owner["token"]) != owner["token"]):
                lost(f"run {folder.name}: another process took it over: {_who(other)}; this one ends")
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
    """Return number and text of the owner's file; 0 where there is none."""
    while numbers := _numbers(folder):
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile, and another's may be there
            try:
                return numbers[-1], _file(folder, numbers[-1]).read_text()
            except UnicodeDecodeError:
                return numbers[-1], ""
    return 0, ""


def _remove(folder: StoragePath, number: int) -> None:
    """Remove the leases up to a number, and the folders that are empty then: of a refused run nothing stays."""
    for older in _numbers(folder):
        if older <= number:
            _file(folder, older).unlink(missing_ok=True)
    if isinstance(folder, Path):
        with contextlib.suppress(OSError):  # another's is in it
            (folder / LEASE).rmdir()
            folder.rmdir()


def _text(owner: dict[str, Any]) -> str:
    return json.dumps(owner, indent=1) + "\n"


def _read(text: str) -> dict[str, Any]:
    """Return the owner; nothing of a file that is just being written, or is damaged."""
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
    """Return what tells in which boot of which kernel, and container, a process id means something; "" off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty for one that is gone, or only not waited for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """Return whether a process of this machine is there, and no later one of the same id; None where nobody knows."""
    pid = owner.get("pid")
    if type(pid) is not int or not 0 < pid < 2**31:
        return None
    is_same = _started(pid) == str(owner.get("started"))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, whose processes /proc may hide
        return is_same or None
    return is_same
