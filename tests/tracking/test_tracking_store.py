"""A store that cannot be used is reported soon and in one line, with key and remedy, and without secrets."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, MLFLOW_HTTP_REQUEST_TIMEOUT

from sclip.config import Config, TrackingConfig
from sclip.tracking import TrackingError, open_run, settings, store
from support.processes import free_port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this machine that accepts connections but never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def tracking_config(uri: str) -> Config:
    return Config(tracking=TrackingConfig(uri=uri))


def test_an_absent_server_is_reported_in_one_line_and_the_environment_stays_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    closed_port = free_port()
    with pytest.raises(TrackingError) as raised:
        open_run(tracking_config(f"http://user:secret@127.0.0.1:{closed_port}"), "first", str(tmp_path))
    message = str(raised.value)
    assert "\n" not in message
    assert "secret" not in message
    assert f"http://***@127.0.0.1:{closed_port} cannot be used" in message
    assert "Connection refused" in message
    assert "tracking.offline=true" in message
    assert list(tmp_path.iterdir()) == []
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_waiting_for_a_server_that_never_answers_ends(
    silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_REACH_S", 1)
    with pytest.raises(TrackingError, match=r"timed? ?out"):
        open_run(tracking_config(f"http://127.0.0.1:{silent_port}"), "first", str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///{folder}/text.db", "file is not a database"),
        ("sqlite:///{folder}/text.db/below/mlflow.db", "cannot be used"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("nonsense", "cannot be used"),
        ("nonsense://user:secret@host/x", "nonsense"),
        ("postgresql://user:secret@host:port/x", "cannot be used"),
    ],
)
def test_an_unusable_store_is_reported_with_the_key(tmp_path: Path, uri: str, message: str) -> None:
    (tmp_path / "text.db").write_text("no database, but a text of more than a hundred bytes. " * 5)
    with pytest.raises(TrackingError, match=r"tracking\.uri") as raised:
        open_run(tracking_config(uri.format(folder=tmp_path)), "first", str(tmp_path))
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_storage_that_cannot_be_written_to_is_not_blamed_on_mlflow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError) as raised:
        open_run(Config(), "first", str(tmp_path / "file" / "below"))
    assert str(raised.value).startswith(f"run.storage='{tmp_path}/file/below': ")
    assert "MLflow" not in str(raised.value)


def test_settings_change_only_what_mlflow_reads_and_not_the_environment_of_other_threads() -> None:
    read = ctypes.CDLL(None).getenv
    read.restype = ctypes.c_char_p
    variable = MLFLOW_HTTP_REQUEST_TIMEOUT
    before = variable.get()
    with settings(**{variable.name: 3}), settings(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"):
        assert variable.get() == 3
        assert not MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get()
        assert variable.name not in os.environ
        assert read(variable.name.encode()) is None
    assert variable.get() == before


def test_several_runs_may_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/mlflow.db"
    script = (
        "import sys; from sclip.tracking.store import Store; print(end='ready', flush=True); sys.stdin.read();"
        f"print(Store({address!r}, 'e', 'r', {str(tmp_path)!r}).reach())"
    )
    command = [sys.executable, "-c", script]
    starts = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in starts:
        assert process.stdout.read(5) == "ready"
    for process in starts:  # all three have loaded their modules and may begin
        process.stdin.close()
    assert {process.wait() for process in starts} == {0}
    assert len({process.stdout.read() for process in starts}) == 1
