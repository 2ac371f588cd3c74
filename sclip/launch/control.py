"""Requests to a running training: write a checkpoint now, and optionally stop after it.

The driver makes a request when a signal tells it to stop. Ray Train's controller makes a request before it changes the
number of workers, and when a worker's node gets a preemption notice. A small actor holds the newest request. Rank 0
polls the actor in a thread, so no step waits for an answer. The training loop passes the request on to the other ranks
in a reduction that every step needs anyway.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Literal

import ray
import ray.exceptions

from sclip.launch.cluster import beside_driver
from sclip.train.launcher import Requested

Kind = Literal["checkpoint", "stop"]
_POLL_EVERY_S = 0.5


class RunControl:
    """Handle to the actor that holds the newest request. The handle can be sent to other processes."""

    def __init__(self) -> None:
        self._actor: Any = ray.remote(**beside_driver())(_ControlActor).remote()

    def request(self, kind: Kind) -> int:
        """Request a checkpoint; "stop" also ends the training after the checkpoint. Return the request's number."""
        return int(ray.get(self._actor.request.remote(kind)))

    def pending(self) -> tuple[int, str]:
        """Return the number and kind of the newest unfulfilled request, or (0, "")."""
        number, kind = ray.get(self._actor.pending.remote())
        return int(number), str(kind)

    def fulfil(self, number: int) -> None:
        """Mark a request and all earlier ones as fulfilled."""
        self._actor.fulfil.remote(number)

    def wait(self, number: int, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds until a request is fulfilled; return whether it was."""
        pause = threading.Event()
        for _ in range(int(timeout_s / _POLL_EVERY_S)):
            if int(ray.get(self._actor.last_fulfilled.remote())) >= number:
                return True
            pause.wait(_POLL_EVERY_S)
        return False

    def close(self) -> None:
        """Kill the actor that holds the requests."""
        ray.kill(self._actor)


class _ControlActor:
    def __init__(self) -> None:
        self._number, self._kind, self._fulfilled = 0, "", 0

    def request(self, kind: str) -> int:
        self._number += 1
        stops = self._kind == "stop" and self._fulfilled < self._number - 1
        if not stops:  # a request for a checkpoint does not cancel a pending stop
            self._kind = kind
        return self._number

    def pending(self) -> tuple[int, str]:
        return (self._number, self._kind) if self._fulfilled < self._number else (0, "")

    def fulfil(self, number: int) -> None:
        self._fulfilled = max(self._fulfilled, number)

    def last_fulfilled(self) -> int:
        return self._fulfilled


class RequestPoller:
    """Poller of the newest request, in a thread of rank 0. On other ranks `control` is None, and nothing is polled."""

    def __init__(self, control: RunControl | None) -> None:
        self._control = control
        self._pending: tuple[int, str] = (0, "")
        self._seen = self._fulfilled = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="requests", daemon=True)
        if control is not None:
            self._thread.start()

    def _poll(self) -> None:
        assert self._control is not None
        while not self._closed.wait(_POLL_EVERY_S):
            # The actor may not answer for a moment, for example while it restarts.
            with contextlib.suppress(ray.exceptions.RayError):
                self._pending = self._control.pending()

    def newest(self) -> Requested:
        """Return the newest request if it is not fulfilled yet, else a request for nothing."""
        number, kind = self._pending
        self._seen = number
        checkpoint = number > self._fulfilled
        return Requested(checkpoint, checkpoint and kind == "stop")

    def fulfil(self) -> None:
        """Mark the last request from `newest` as fulfilled; call this when the request's checkpoint is complete."""
        if self._control is not None and self._seen > self._fulfilled:
            self._control.fulfil(self._seen)
            self._fulfilled = self._seen

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._control is not None:
            self._thread.join()
