"""Signals in, an orderly end out: SIGTERM (`ray job stop`, a preempted node, a batch system, `timeout`) and Ctrl-C.

Work that can end by itself with nothing lost is asked to, once; a later signal ends it where it stands. What else the
main thread does ends at once. A shell, `make` and `timeout` each hand on what they get, so one event may arrive as
several signals: those within `SAME_S` are one. Ray Train has a handler of its own for SIGINT alone, and registers it
where it is called in the main thread; the work therefore runs in another one, and the main thread has nothing to do
but to listen.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import NoReturn

__all__ = [
    "SAME_S",
    "Answer",
    "Stopped",
    "answered",
    "deferred",
    "leave",
    "leave_imports",
    "run",
    "status_of",
    "stop",
]

SAME_S = 2.0
"""Seconds within which further signals are the same one, handed on by several programs."""

Answer = Callable[[signal.Signals, "FrameType | None"], None]
"""What is done at a signal, in the main thread: the signal, and what was being executed."""

_answers: list[Answer] = []
"""Of the blocks of `answered` that the main thread is in; the last one is called."""
_answered_s = -math.inf


class Stopped(BaseException):
    """Raised at a signal to end, as KeyboardInterrupt is; one line that says what was left."""

    def __init__(
        self, message: str = "stopped", number: signal.Signals = signal.SIGTERM, work_goes_on: bool = False
    ) -> None:
        """Take the signal, and whether a thread still works until the process ends."""
        super().__init__(message)
        self.number = number
        self.work_goes_on = work_goes_on


def status_of(error: BaseException) -> int:
    """Return the exit status by which shells know a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def leave(status: int) -> NoReturn:
    """End the process at once, while a thread still works.

    Python's own end would disconnect from Ray first, and Ray ends a process with status 1 when a thread calls it after
    that. A cluster that this process started ends with it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stop(number: signal.Signals, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt at Ctrl-C and Stopped at SIGTERM, wherever the main thread is."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped("stopped", number)


def leave_imports(name: str) -> Answer:
    """Return the answer of a program that has begun nothing yet while it imports: one line, and the process ends.

    An exception that is raised in the middle of an import may be swallowed there, or printed by a C extension. The line
    names the program by `name`. Outside of imports the answer is `stop`.
    """

    def answer(number: signal.Signals, frame: FrameType | None) -> None:
        if _imports(frame):
            how = "interrupted" if number == signal.SIGINT else "stopped"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{name}: {how}\n".encode())
            os._exit(128 + number)
        stop(number, frame)

    return answer


def _imports(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def answered(answer: Answer = stop) -> Iterator[None]:
    """Answer SIGTERM and Ctrl-C with a function until the block is left; outside of a main thread there are none."""
    global _answered_s
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _answers:
        _answered_s = -math.inf
    _answers.append(answer)
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        _answers.pop()


def _handle(number: int, frame: FrameType | None) -> None:
    global _answered_s
    now = time.monotonic()
    if now > _answered_s + SAME_S:
        _answered_s = now
        _answers[-1](signal.Signals(number), frame)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Answer a signal at the end of the block: what the block begins is known by then, and can be ended."""
    came: list[signal.Signals] = []
    with answered(lambda number, frame: came.append(number)):
        yield
    if came:
        stop(came[0], None)


def run(work: Callable[[], None], ask: Callable[[], bool]) -> signal.Signals | None:
    """Do the work, and raise as it does; what it is not asked to leave it, is left at a second signal.

    Args:
        work: what is done, in a thread.
        ask: called at the first signal; returns whether the work will end by itself.

    Returns the signal at which the work was asked to end, if there was one. Raises Stopped where it will not end by
    itself, or at a second signal. Outside of a main thread there are no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return None
    done: Future[None] = Future()
    asked: list[signal.Signals] = []

    def called() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def answer(number: signal.Signals, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1 or not ask():
            raise Stopped("stopped", number, work_goes_on=True)

    with answered(answer):
        threading.Thread(target=called, name="work", daemon=True).start()
        done.result()
    return asked[0] if asked else None
