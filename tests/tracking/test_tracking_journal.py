"""A run's journal keeps all logged events however the process ends, and counts nothing as sent that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sclip.tracking import history
from sclip.tracking.journal import JOURNAL, SENT, Journal, Sent
from sclip.tracking.opening import _take_over
from support.paths import ROOT


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "runs" / "first")


def loss(step: int, value: float = 1.0) -> dict[str, object]:
    return {"metrics": {"loss": value}, "step": step}


def test_events_are_read_in_order_each_with_the_offset_of_the_next(journal: Journal) -> None:
    for step in range(2):
        journal.append(loss(step))
    (first, event), (last, other) = journal.read()
    assert [event, other] == [loss(0), loss(1)]
    assert [*journal.read(first)] == [(last, loss(1))]
    assert [*journal.read(last)] == []


def test_the_history_is_the_curve_of_each_metric_including_nan_and_infinity(
    journal: Journal, tmp_path: Path
) -> None:
    journal.append({"tags": {"a": "b"}})
    journal.append({"metrics": {"loss": 3.0, "rate": 0.5}, "step": 1})
    journal.append(loss(2, float("nan")))
    journal.append(loss(3, float("inf")))
    curves = history(journal.folder)
    assert str(curves) == "{'loss': [(1, 3.0), (2, nan), (3, inf)], 'rate': [(1, 0.5)]}"
    assert json.loads((journal.folder / JOURNAL).read_text().splitlines()[3]) == loss(3, float("inf"))
    (tmp_path / "empty").mkdir()
    assert history(tmp_path / "empty") == {}
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("torn", ['{"metrics":{"lo', '{"metrics":{"loss":1.0},"step":1'])
def test_a_torn_last_line_is_skipped_and_the_next_event_is_whole(journal: Journal, torn: str) -> None:
    journal.append(loss(1))
    with (journal.folder / JOURNAL).open("a") as file:
        file.write(torn)
    again = Journal(journal.folder)
    assert history(journal.folder) == {"loss": [(1, 1.0)]}
    again.append(loss(2))
    again.append(loss(3))
    assert history(journal.folder) == {"loss": [(1, 1.0), (2, 1.0), (3, 1.0)]}


def test_the_next_process_knows_how_far_a_journal_was_sent_unless_the_journal_is_shorter(
    journal: Journal,
) -> None:
    journal.append(loss(1))
    for offset, known in ((12, 12), (10_000, 0)):
        journal.sent = Sent("http://mlflow", "abc", offset, (3, 7) if known else ())
        assert Journal(journal.folder).sent == Sent("http://mlflow", "abc", known, (3, 7) if known else ())


@pytest.mark.parametrize("content", ["", "[]", '{"offset": 1}', '{"store": 1, "artifacts": [], "more": 0}'])
def test_everything_is_sent_again_if_the_record_of_what_was_sent_is_unreadable(
    journal: Journal, content: str
) -> None:
    (journal.folder / SENT).write_text(content)
    assert journal.sent == Sent()


def test_a_journal_that_the_remote_folder_lacks_is_kept_under_another_name(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append({"metrics": {"loss": 1.0}, "step": 1})
    remote = MagicMock()
    remote.__truediv__.return_value.configure_mock(
        **{"exists.return_value": False, "is_file.return_value": False}
    )
    _take_over(remote, journal.folder)
    (kept,) = journal.folder.glob("tracking.*.jsonl")
    assert '"loss":1.0' in kept.read_text()
    assert str(kept) in caplog.text
    assert history(journal.folder) == {}


def test_a_killed_process_loses_nothing_that_it_logged(tmp_path: Path) -> None:
    """The process prints each step after logging it, until it is killed while it logs."""
    program = f"""
from sclip.config import Config, TrackingConfig
from sclip.tracking import open_run
tracker = open_run(Config(tracking=TrackingConfig(uri="http://127.0.0.1:1", offline=True)), "killed", {str(tmp_path)!r})
for step in range(1_000_000):
    tracker.log({{f"metric{{n}}": float(step) for n in range(50)}}, step)
    print(step, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    printed = [process.stdout.readline() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    printed += process.stdout.readlines()
    process.wait()
    steps = [int(line) for line in printed if line.endswith("\n")]
    assert len(steps) >= 200
    curves = history(tmp_path / "runs" / "killed")
    for number in range(50):
        assert curves[f"metric{number}"][: len(steps)] == [(step, float(step)) for step in steps]
    assert all(len(curve) - len(steps) <= 1 for name, curve in curves.items() if name.startswith("metric"))
