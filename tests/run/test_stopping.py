"""A program of its own that is told to end: what it is doing says whether it ends by itself, or at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

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


def run(
    signals: list[signal.Signals], ends: bool = True, after_s: float = 0.0, same_s: float = 600.0
) -> list[str]:
    """Return what the program prints that is sent the signals, each after another line of its output."""
    program = PROGRAM.format(ends=ends, after_s=after_s, same_s=same_s)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        said = []
        for number in signals:
            said.append(child.stdout.readline().strip())
            child.send_signal(number)
        return [*said, *child.stdout.read().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_ends_by_itself_is_waited_for(number: signal.Signals) -> None:
    assert run([number]) == ["working", "asked", "saved"]


def test_signals_close_together_are_one() -> None:
    assert run([signal.SIGTERM, signal.SIGTERM, signal.SIGINT]) == ["working", "asked", "saved"]


def test_work_is_left_at_a_later_signal() -> None:
    assert run([signal.SIGTERM, signal.SIGTERM], after_s=60, same_s=0) == ["working", "asked", "stopped"]


def test_work_that_would_not_end_is_left_at_once() -> None:
    assert run([signal.SIGTERM], ends=False, after_s=60) == ["working", "asked", "stopped"]


def test_an_error_of_the_work_is_raised() -> None:
    def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        stopping.run(work, lambda: True)


def test_outside_of_the_main_thread_it_is_done_without_signals() -> None:
    done: list[str] = []
    thread = threading.Thread(
        target=stopping.run, args=(lambda: done.append(threading.current_thread().name), bool)
    )
    thread.name = "tune"
    thread.start()
    thread.join()
    assert done == ["tune"]


@pytest.mark.parametrize(
    ("number", "error", "status"),
    [(signal.SIGTERM, stopping.Stopped, 143), (signal.SIGINT, KeyboardInterrupt, 130)],
)
def test_what_else_is_done_ends_at_once_or_at_the_end_of_a_block_that_defers_it(
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
