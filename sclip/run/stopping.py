"""End a program in good order at SIGTERM (`ray job stop`, a preempted node, a batch system, `timeout`) or Ctrl-C.

The first signal asks the work of `run` to end by itself, if it can do so without loss; a second signal ends the program
at once. Outside of `run`, the first signal ends the program. A shell, `make` and `timeout` each forward signals, so one
event may arrive as several signals; signals within `SAME_S` count as one.
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
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

__all__ = [
    "SAME_S",
    "Answer",
    "Stopped",
    "answered",
    "deferred",
    "leave_imports",
    "left",
    "run",
    "status_of",
    "stop",
]

SAME_S = 2.0
"""Signals within this many seconds count as one."""
_WAKE_S = 1.0
"""Seconds after which the main thread wakes up. A signal just before it begins to wait would not wake it."""

Answer = Callable[[signal.Signals, "FrameType | None"], None]
"""Signal handler, called in the main thread with the signal and the interrupted frame."""

_answers: list[Answer] = []
"""Handlers of the active `answered` blocks, outermost first. A signal calls only the last one."""
_answered_s = -math.inf


class Stopped(BaseException):
    """Raised when a signal ends the program, like KeyboardInterrupt. The message is one line for the user."""

    def __init__(
        self, message: str = "stopped", number: signal.Signals = signal.SIGTERM, work_goes_on: bool = False
    ) -> None:
        """Store the message, the signal, and whether a thread still does the work (until the process ends)."""
        super().__init__(message)
        self.number = number
        self.work_goes_on = work_goes_on


def status_of(error: BaseException) -> int:
    """Return the exit status that shells expect after a signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def left(error: BaseException) -> int:
    """Return `status_of(error)`. If a thread still does the work, end the process with this status instead."""
    status = status_of(error)
    if isinstance(error, Stopped) and error.work_goes_on:
        with contextlib.suppress(OSError, ValueError):  # nobody may read the output any more
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        # At a normal exit, Python disconnects from Ray; the thread's next call of Ray would end the process with 1.
        os._exit(status)
    return status


def stop(number: signal.Signals, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt at Ctrl-C, and Stopped at SIGTERM, in the main thread."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped("stopped", number)


def leave_imports(name: str) -> Answer:
    """Return a signal handler that calls `stop`; during an import, it prints a line with `name` and exits."""

    def answer(number: signal.Signals, frame: FrameType | None) -> None:
        if _imports(frame):  # an import might swallow an exception, or a C extension might print it
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
    """Call `answer` at SIGTERM and Ctrl-C during the block. Outside of the main thread, the block changes nothing."""
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
    """Delay signals until the block ends, for blocks that would leave something running if a signal ended them."""
    came: list[signal.Signals] = []
    with answered(lambda number, frame: came.append(number)):
        yield
    if came:
        stop(came[0], None)


def run(work: Callable[[], None], ask: Callable[[], bool]) -> signal.Signals | None:
    """Run the work in a thread; return the signal that asked it to end, or None if there was no signal.

    Args:
        work: function to run; its errors are raised here.
        ask: called at the first signal; returns whether the work will end by itself.

    Raises Stopped if the work will not end by itself, or at a second signal; the thread goes on working. Outside of
    the main thread, the work runs directly, and no signal is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return None
    done: Future[None] = Future()
    events: SimpleQueue[signal.Signals | None] = SimpleQueue()  # None: the work has ended
    signals: list[signal.Signals] = []
    asking = False

    def called() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        events.put(None)

    def answer(number: signal.Signals, frame: FrameType | None) -> None:
        if asking:  # `ask` may wait for a cluster that is gone
            raise Stopped("stopped", number, work_goes_on=True)
        events.put(number)  # an exception raised here might break the lock that the main thread waits for

    # The work calls Ray Train, which would register its own handler in the main thread, for SIGINT only.
    with answered(answer):
        threading.Thread(target=called, name="work", daemon=True).start()
        while not done.done():
            try:
                number = events.get(timeout=_WAKE_S)
            except Empty:
                continue
            if number is None:
                break
            signals.append(number)
            asking = True
            if len(signals) > 1 or not ask():
                raise Stopped("stopped", number, work_goes_on=True)
            asking = False
        done.result()
    return signals[0] if signals else None
