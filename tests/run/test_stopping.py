"""A separate program that is told to end: its current work decides whether it finishes or ends at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from sclip.run import stopping
from support.paths import ROOT

PROGRAM = """
import sys, threading, time
from sclip.run import stopping

stopping.SAME_S = {same_s}
asked = threading.Event()

def work():
    print("working", flush=True)
    if not asked.wait(30):
        sys.exit("nobody asked")
    time.sleep({after_s})
    print("saved", flush=True)

def ask():
    print("asked", flush=True)
    asked.set()
    return {ends}

try:
    stopping.run(work, ask)
except stopping.Stopped:
    print("stopped", flush=True)
"""


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("signals", "program", "words"),
    [
        ([TERM], {}, "working asked saved"),  # work that ends by itself is waited for
        ([TERM, TERM, INT], {}, "working asked saved"),  # signals close together count as one
        (
            [TERM, TERM],
            {"after_s": 60, "same_s": 0},
            "working asked stopped",
        ),  # a later signal abandons the work
        (
            [TERM],
            {"ends": False, "after_s": 60},
            "working asked stopped",
        ),  # work that would not end is abandoned at once
    ],
)
def test_a_program_that_gets_signals_prints_the_expected_words(
    signals: list[signal.Signals], program: dict[str, object], words: str
) -> None:
    text = PROGRAM.format(**{"ends": True, "after_s": 0, "same_s": 600} | program)
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        lines = []
        for number in signals:
            lines.append(child.stdout.readline().strip())
            child.send_signal(number)
        assert [*lines, *child.stdout.read().split()] == words.split()


@pytest.mark.parametrize(
    ("number", "error", "status"),
    [(signal.SIGTERM, stopping.Stopped, 143), (signal.SIGINT, KeyboardInterrupt, 130)],
)
def test_other_work_ends_at_once_or_at_the_end_of_a_deferring_block(
    number: signal.Signals, error: type[BaseException], status: int
) -> None:
    before, done = signal.getsignal(number), []

    def work() -> None:
        signal.raise_signal(number)
        done.append("this far")

    with pytest.raises(error), stopping.answered():
        work()
    assert done == []
    with pytest.raises(error) as raised, stopping.answered(), stopping.deferred():
        work()
    assert done == ["this far"]
    assert stopping.status_of(raised.value) == status
    assert signal.getsignal(number) is before
