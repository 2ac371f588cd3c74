"""Send the journal of a run to one destination, in a thread that retries until it succeeds.

Each destination has its own sender, so no destination waits for another.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from sclip.tracking.journal import Journal
from sclip.tracking.store import first_cause

_GATHER_S = 1.0
"""Seconds between two calls of `Destination.send`; new events gather during this time."""
_RETRY_S = (1.0, 30.0)
"""Shortest and longest seconds of a wait before a retry. Each retry doubles the wait. Not tenacity: `flush` and `close`
must end a wait early."""

_log = logging.getLogger("sclip.tracking")


class Destination(Protocol):
    """Receiver of a run's events. Only the thread of a `Sender` calls `send`."""

    @property
    def name(self) -> str:
        """Name of the destination in warnings, without credentials."""

    def send(self, until: int) -> bool:
        """Send the next events before journal offset `until`; return False if none is left. May raise any error."""


class Sender:
    """Daemon thread that sends the events of a journal to one destination."""

    def __init__(self, journal: Journal, destination: Destination) -> None:
        """Start the thread, which sends the events that the destination does not have yet."""
        self._journal = journal
        self._destination = destination
        self._state = threading.Condition()
        self._has_news = True
        self._flushes = self._flushed = self._batches = 0
        self._closing = False
        self.name = destination.name
        self.trouble = ""
        """Why the destination accepts no events; "" while it accepts them."""
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake the thread after the journal has grown."""
        with self._state:
            self._has_news = True
            self._state.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Wait until all events written so far are sent; return False after `wait_s` seconds without any progress."""
        with self._state:
            self._flushes += 1
            self.notify()
            number, batches, until = self._flushes, self._batches, time.monotonic() + wait_s
            while self._flushed < number:
                if not self._state.wait(until - time.monotonic()) and time.monotonic() >= until:
                    return False
                if self._batches > batches:
                    batches, until = self._batches, time.monotonic() + wait_s
        return True

    def close(self) -> None:
        """Stop the thread; wait at most a second for its end."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        delay = _RETRY_S[0]
        while True:
            with self._state:
                self._state.wait_for(lambda: self._has_news or self._closing)
                if self._closing:
                    return
                flushes, self._has_news = self._flushes, False
            try:
                until = self._journal.size  # later events wait for the next round, so that this round ends
                while not self._closing and self._destination.send(until):
                    with self._state:
                        self._batches += 1
                        self._state.notify_all()
            except Exception as error:  # a library may raise any error, and this thread must survive
                cause = first_cause(error)
                if cause != self.trouble:
                    _log.warning("metrics wait on disk until %s accepts them: %s", self.name, cause)
                self.trouble = cause
                pause, delay = delay, min(2 * delay, _RETRY_S[1])
                with self._state:
                    self._has_news = True
            else:
                if self.trouble:
                    _log.warning("%s accepts metrics again", self.name)
                self.trouble, pause, delay = "", _GATHER_S, _RETRY_S[0]
                with self._state:
                    self._flushed = flushes
                    self._state.notify_all()
            with self._state:  # events gather or a destination recovers; a new `flush` ends this wait
                if self._flushes > self._flushed:  # a call of `flush` is waiting
                    pause = min(pause, _RETRY_S[0])
                self._state.wait_for(lambda: self._closing or self._flushes > flushes, pause)  # noqa: B023
