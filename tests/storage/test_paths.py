"""Folders on a disk and in an object store: each operation does the same on both, even if storage fails."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sclip.storage import paths
from sclip.storage.paths import StoragePath, sizes, storage_path, write
from sclip.storage.remote import Remote
from sclip.storage.retries import StorageError
from support.object_store import ObjectStore, every


@pytest.fixture(params=["disk", "memory", "s3 that fails every fourth time"])
def folder(request: pytest.FixtureRequest, store: ObjectStore, tmp_path: Path) -> Iterator[StoragePath]:
    """A folder `one` in an otherwise empty folder, with the files `one/a` and `one/sub/b`."""
    name = re.sub(r"\W+", "-", request.node.name)
    if request.param == "disk":
        path: StoragePath = tmp_path / "disk" / "one"
    elif request.param == "memory":  # stands for any other fsspec file system
        path = storage_path(f"memory://{name}/one")
    else:
        path = store.path(f"{name}/one")
    for name in ("a", "sub/b"):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, name)
    if request.param.endswith("time"):
        store.fault = every(4)
    yield path
    store.fault = None


def names(parent: StoragePath) -> list[str]:
    return sorted(child.name for child in parent.iterdir())


def nothing_is_nowhere(folder: StoragePath) -> None:
    assert not (folder / "no").exists()
    assert not (folder / "no").is_file()
    assert not (folder / "no").is_dir()
    assert sizes(folder / "no") == {}
    assert not list((folder / "no").glob("*"))
    paths.remove(folder / "no")
    (folder / "no").unlink(missing_ok=True)
    for read in ((folder / "no").read_bytes, (folder / "no").stat, (folder / "no").unlink):
        with pytest.raises(FileNotFoundError) as raised:
            read()
        assert str(folder / "no") in str(raised.value)


def a_file_is_what_was_written_last(folder: StoragePath) -> None:
    for text in ("one", "zwölf", ""):
        write(folder / "new", text)
        assert (folder / "new").read_text(encoding="utf-8") == text
        assert (folder / "new").stat().st_size == len(text.encode())
    for text in ("1\n", "2\n"):
        paths.append(folder / "new", text)
    assert (folder / "new").read_text() == "1\n2\n"
    assert abs((folder / "new").stat().st_mtime - time.time()) < 60
    with (folder / "a").open("rb") as file:
        assert file.readline() == b"a"
    assert names(folder) == ["a", "new", "sub"]


def names_are_found_by_a_pattern(folder: StoragePath) -> None:
    write(folder / "ab", "")
    assert sorted(path.name for path in folder.glob("a*")) == ["a", "ab"]
    assert [path.name for path in folder.glob("*/")] == ["sub"]
    assert [(path.is_dir(), path.is_file()) for path in folder.glob("s*")] == [(True, False)]
    assert (folder.is_dir(), (folder / "a").is_dir(), (folder / "a").is_file()) == (True, False, True)
    assert sizes(folder) == {"a": 1, "ab": 0, "sub/b": 5}


def a_folder_is_renamed_and_removed_with_all_in_it(folder: StoragePath) -> None:
    paths.move(folder, two := folder.with_name("two"), first="sub/b")
    assert sizes(folder.parent) == {"two/a": 1, "two/sub/b": 5}
    assert (two / "sub" / "b").read_text() == "sub/b"
    (two / "a").unlink()
    assert sizes(two) == {"sub/b": 5}
    paths.remove(two)
    assert not two.exists()
    assert sizes(folder.parent) == {}


def what_is_staged_and_sent_is_there(folder: StoragePath) -> None:
    with paths.staged(folder) as local:
        (local / "deep" / "er").mkdir(parents=True)
        (local / "deep" / "er" / "c").write_text("c")
        (local / "unsent").write_text("")
        paths.send(local, folder, ["deep/er/c"])
    assert (folder / "deep" / "er" / "c").read_text() == "c"
    assert isinstance(folder, Path) or (not local.exists() and not (folder / "unsent").exists())


def a_copy_is_read_here_and_goes(folder: StoragePath) -> None:
    with paths.local_copy(folder) as local:
        assert sizes(local) == sizes(folder)
        assert (local / "sub" / "b").read_text() == "sub/b"
    assert local.exists() == (local == folder)
    with paths.local_copy(folder, names=["a", "no"]) as local:
        assert (local / "a").read_text() == "a"
        assert isinstance(folder, Path) or sizes(local) == {"a": 1}


def a_copy_is_kept_until_it_is_another(folder: StoragePath) -> None:
    first = paths.cached_copy(folder)
    assert paths.cached_copy(folder) == first
    assert paths.cached_copy(folder / "a").read_text() == "a"
    write(folder / "sub" / "b", "longer")
    assert (paths.cached_copy(folder) / "sub" / "b").read_text() == "longer"


def a_place_outlives_being_written_down_and_is_what_ray_train_gets(folder: StoragePath) -> None:
    for again in (storage_path(paths.address(folder)), storage_path(folder)):
        assert again == folder
        assert (again / "a").read_text() == "a"
    assert (folder / "a").parent == folder
    disk, free = paths.free_bytes(folder)
    assert free > 0
    assert (disk == folder) == isinstance(folder, Path)
    arguments = paths.ray_storage(folder)
    if isinstance(folder, Path):
        assert arguments == {"storage_path": str(folder)}
    else:
        with arguments["storage_filesystem"].open_input_stream(f"{arguments['storage_path']}/a") as file:
            assert file.read() == b"a"


@pytest.mark.parametrize(
    "operation",
    [
        nothing_is_nowhere, a_file_is_what_was_written_last, names_are_found_by_a_pattern,
        a_folder_is_renamed_and_removed_with_all_in_it, what_is_staged_and_sent_is_there,
        a_copy_is_read_here_and_goes, a_copy_is_kept_until_it_is_another,
        a_place_outlives_being_written_down_and_is_what_ray_train_gets,
    ],
    ids=lambda operation: operation.__name__.replace("_", " "),
)  # fmt: skip
def test_disk_and_object_store_do_the_same(
    operation: Callable[[StoragePath], None], folder: StoragePath
) -> None:
    operation(folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Act as an ordinary user, so that folder permissions apply."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("storage", "guard", "message"),
    [
        ("{tmp}/a file", contextlib.nullcontext, "'{tmp}/a file' cannot be written to (Not a directory)"),
        ("/proc/self/below", contextlib.nullcontext, "/proc/self cannot be written to (No such file"),
        ("{tmp}/closed/below", as_nobody, " cannot be written to (Permission denied)"),
    ],
)
def test_an_unwritable_storage_is_reported_with_its_key_and_nothing_is_left(
    storage: str, guard: Callable[[], AbstractContextManager[None]], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    before, location = sorted(tmp_path.rglob("*")), storage.format(tmp=tmp_path)
    paths.check_writable(tmp_path / "not" / "there" / "yet")
    with guard(), pytest.raises(OSError, match=r"run\.storage=") as raised:
        paths.check_writable(Path(location))
    assert str(raised.value).startswith(f"run.storage={location!r}: ")
    assert message.format(tmp=tmp_path) in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_neither_credentials_nor_query_of_a_uri_are_shown(store: ObjectStore) -> None:
    folder = store.path("runs") / "first" / "step-00000001"
    assert str(folder) == "s3://***@bucket/runs/first/step-00000001"
    assert (folder.name, folder.parent.name) == ("step-00000001", "first")
    assert folder.uri.endswith(f"/runs/first/step-00000001?endpoint_override=http://127.0.0.1:{store.port}")
    with pytest.raises(FileNotFoundError) as raised:
        folder.read_bytes()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [(503, "storage failed 3 times; last error: "), (403, ".*check the address and the credentials")],
)
def test_storage_that_stays_away_or_refuses_is_reported_in_one_line_and_not_as_a_missing_file(
    store: ObjectStore, status: int, message: str
) -> None:
    file = store.path("there")
    write(file, "")
    store.fault = lambda method, path, number: status
    for use in (lambda: write(file, "text"), file.exists, lambda: list(file.parent.iterdir())):
        with pytest.raises(StorageError, match=rf"^s3://\*\*\*@bucket\S*: {message}") as raised:
            use()
        assert "secret" not in str(raised.value)


def test_the_file_that_makes_a_folder_whole_is_moved_before_all_others(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.path("moved/step-1")
    for name in ("a", "manifest.json", "z"):
        write(folder / name, name)
    moved: list[str] = []
    whole = Remote.move
    monkeypatch.setattr(Remote, "move", lambda file, to: (moved.append(file.name), whole(file, to))[1])
    paths.move(folder, store.path("moved/damaged-step-1"), first="manifest.json")
    assert moved[0] == "manifest.json"
    assert sorted(moved) == ["a", "manifest.json", "z"]


def test_a_truncated_download_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    write(store.path("cut/file"), "text")
    with pytest.raises(StorageError, match="ended at byte 4 of 5"):
        store.path("cut/file").download(tmp_path / "file", 5)


def test_a_folder_for_copies_that_another_user_made_is_not_trusted(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store.path("mine/file"), "x")
    other = os.getuid() + 1
    (tmp_path / "tmp" / f"sclip-{other}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(PermissionError, match="belongs to another user; set TMPDIR"):
        paths.cached_copy(store.path("mine/file"))
