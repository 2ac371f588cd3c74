"""A run's folder has one owner, on disk or in an object store: who is refused, who takes over, and when."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sclip.config import ConfigError
from sclip.run import lease
from sclip.run.stopping import Stopped
from sclip.storage.paths import StoragePath, create, sizes, write
from support.object_store import ObjectStore, object_store
from support.paths import ROOT
from support.storage_server import isolate

PROGRAM = """
import sys
from pathlib import Path
from sclip.run import lease
with lease.held(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as made:
        yield made


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """The folder of a run that does not exist yet."""
    if request.param == "s3":
        isolate(monkeypatch)
        return request.getfixturevalue("store").path(f"runs/{tmp_path.name}")
    return tmp_path / "a"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY_S", 0.6)


def leases(folder: StoragePath) -> list[str]:
    names = sizes(folder / "lease") if (folder / "lease").exists() else ()
    return sorted(name for name in names if name[0] != ".")  # a lease that is being written begins with a dot


def owner_of(folder: StoragePath) -> dict[str, object]:
    (name,) = leases(folder)
    owner = json.loads((folder / "lease" / name).read_text())
    assert isinstance(owner, dict)
    return owner


def leave(folder: StoragePath, number: int = 3, **changes: object) -> None:
    """Leave the lease of a process on another host."""
    elsewhere = {"host": "node-7", "machine": "another", "pid": 41, "since": "2026", "token": "t"}
    create(folder / "lease" / f"{number}.json", json.dumps(elsewhere | changes))


def test_a_second_start_is_told_the_owner_and_the_lease_ends_with_its_owner(folder: StoragePath) -> None:
    with lease.held(folder, pytest.fail):
        owner = owner_of(folder)
        known = rf"run {folder.name}: .*host {socket.gethostname()}, process {os.getpid()}, since {owner['since']}"
        with pytest.raises(ConfigError, match=known.replace("+", r"\+")), lease.held(folder, pytest.fail):
            pytest.fail("a second owner")
        assert owner_of(folder)["token"] == owner["token"]
    assert leases(folder) == []


def test_one_of_many_simultaneous_starts_becomes_the_owner(folder: StoragePath) -> None:
    # This process does not exist, so each start would take over.
    leave(folder, pid=2**22 + 1, machine=lease._machine())
    gate, over = threading.Barrier(6), threading.Event()

    def start(_: int) -> str:
        gate.wait()
        try:
            with lease.held(folder, pytest.fail):
                over.wait(30)
                return "held"
        except ConfigError:
            return "refused"

    with ThreadPoolExecutor(6) as pool:
        started = [pool.submit(start, number) for number in range(6)]
        while sum(future.done() for future in started) < 5:
            over.wait(0.01)
        assert leases(folder) == ["4.json"]
        over.set()
        assert sorted(future.result() for future in started) == ["held", *["refused"] * 5]


def test_after_a_kill_a_start_on_the_same_machine_takes_over_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {child.pid},"), lease.held(tmp_path, pytest.fail):
            pytest.fail("a second owner")
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped yet
        with lease.held(tmp_path, pytest.fail):
            assert leases(tmp_path) == ["2.json"]
    leave(tmp_path, pid=os.getpid(), machine=lease._machine(), started="1")  # another process now has this ID
    with lease.held(tmp_path, pytest.fail):
        assert leases(tmp_path) == ["4.json"]


HALF, NO_TEXT, DEEP = b"", b"\xff\xfe", b"[" * 100_000


@pytest.mark.parametrize(
    ("folder", "owner"),
    [("s3", 41), *(("disk", owner) for owner in (41, None, 10**12, HALF, NO_TEXT, DEEP))],
    indirect=["folder"],
)
def test_a_remote_or_unknown_owner_without_heartbeats_is_waited_for_and_replaced(
    folder: StoragePath, owner: object
) -> None:
    leave(
        folder,
        pid=0 if isinstance(owner, bytes) else owner,
        machine="another" if owner == 41 else lease._machine(),
    )
    if isinstance(owner, bytes) and isinstance(folder, Path):
        (folder / "lease" / "3.json").write_bytes(owner)
    messages: list[str] = []
    with lease.held(folder, messages.append):
        assert leases(folder) == ["4.json"]
        assert owner_of(folder)["pid"] == os.getpid()
    waiting, gone_on = messages
    assert "waiting 0.6 s for a sign of life" in waiting
    assert ("node-7" in waiting) != isinstance(owner, bytes)
    assert "no sign of life in 0.6 s, so this process takes it over" in gone_on


def test_an_owner_that_ends_while_watched_is_replaced_and_a_file_in_place_of_the_lease_is_an_error(
    tmp_path: Path,
) -> None:
    leave(tmp_path)
    with lease.held(tmp_path, lambda _: (tmp_path / "lease" / "3.json").unlink()):
        assert leases(tmp_path) == ["1.json"]
    # An empty folder is removed with its lease.
    (file := tmp_path / "run" / "lease").parent.mkdir(parents=True)
    file.write_text("")
    with pytest.raises(ConfigError, match=f"{file} is a file"), lease.held(file.parent, pytest.fail):
        pytest.fail("an owner")


def test_an_owner_with_heartbeats_is_not_replaced(folder: StoragePath) -> None:
    leave(folder)
    beats = threading.Event()

    def say(line: str) -> None:
        write(
            folder / "lease" / "3.json", json.dumps({"host": "node-7", "pid": 41, "since": "x", "beats": 9})
        )
        beats.set()

    with pytest.raises(ConfigError, match="host node-7, process 41, since x"), lease.held(folder, say):
        pytest.fail("a second owner")
    assert beats.is_set()
    assert leases(folder) == ["3.json"]


@pytest.mark.parametrize("take", ["next", "same"])
def test_a_replaced_owner_is_told_once_and_leaves_the_new_lease_alone(take: str, folder: StoragePath) -> None:
    messages, is_lost = [], threading.Event()

    def lost(line: str) -> None:
        messages.append(line)
        is_lost.set()

    with lease.held(folder, pytest.fail, lost):
        if take == "next":
            leave(folder, 2)
        other = json.dumps({"host": "node-7", "pid": 41, "since": "x", "token": "t"})
        while not is_lost.wait(0.05):  # a heartbeat under way may overwrite the file
            if take == "same":  # as in a store without conditional writes
                write(folder / "lease" / "1.json", other)
    assert len(messages) == 1
    assert f"run {folder.name}: another process took it over: host node-7, process 41" in messages[0]


def test_a_temporary_storage_outage_ends_no_run(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    folder, beats = store.path("runs/away"), threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, store, "fault", None)
        stack.enter_context(lease.held(folder, pytest.fail, pytest.fail))

        before = store.failed

        def fault(method: str, path: str, number: int) -> int:
            if store.failed > before + 3:
                beats.set()
            return 0 if beats.is_set() else 503

        store.fault = fault
        assert beats.wait(300)
        count = owner_of(folder)["beats"]
        while owner_of(folder)["beats"] == count:
            beats.wait()


def test_without_conditional_writes_a_lease_is_written_and_read_back(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    folder, refused = store.path("runs/plain"), []

    def fault(method: str, path: str, number: int) -> int:
        if method == "PUT" and not refused:
            refused.append(path)
            return 400
        return 0

    monkeypatch.setattr(store, "fault", fault)
    with lease.held(folder, pytest.fail):
        assert refused == ["/bucket/runs/plain/lease/1.json"]
        assert owner_of(folder)["pid"] == os.getpid()
        with pytest.raises(ConfigError, match="another process runs it"), lease.held(folder, pytest.fail):
            pytest.fail("a second owner")


def test_work_that_goes_on_until_the_process_ends_keeps_its_lease(tmp_path: Path) -> None:
    for goes_on, remaining in ((False, []), (True, ["1.json"])):
        with pytest.raises(Stopped), lease.held(tmp_path, pytest.fail):
            raise Stopped(work_goes_on=goes_on)
        assert leases(tmp_path) == remaining
