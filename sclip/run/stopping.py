"""Signals in, an orderly end out: SIGTERM (`ray job stop`, a preempted node, a batch system) and Ctrl-C.

Work that can end by itself with nothing lost is asked to, once; a second signal ends it where it stands. What else the
main thread does ends at once. Ray Train has a handler of its own for SIGINT alone, and registers it where it is called
in the main thread; the work therefore runs in another one, and the main thread has nothing to do but to listen.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType

__all__ = ["Stopped", "ends_on_sigterm", "run"]


class Stopped(BaseException):
    """Raised at a signal to end, as KeyboardInterrupt is; one line that says what was left."""


@contextlib.contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Raise Stopped in the main thread at SIGTERM, until the block is left."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Stopped("stopped")

    with _handled(handler, signal.SIGTERM):
        yield


def run(work: Callable[[], None], ask: Callable[[], bool]) -> None:
    """Do the work, and return or raise as it does; what it is not asked to leave it, is left at a second signal.

    Args:
        work: what is done, in a thread.
        ask: called at the first signal; returns whether the work will end by itself.

    Raises Stopped where it will not, or at a second signal. Outside of a main thread there are no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    done: Future[None] = Future()
    signals = [0]

    def called() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def handler(number: int, frame: FrameType | None) -> None:
        signals[0] += 1
        if signals[0] > 1 or not ask():
            raise Stopped("stopped")

    with _handled(handler, signal.SIGTERM, signal.SIGINT):
        threading.Thread(target=called, name="work", daemon=True).start()
        done.result()


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
