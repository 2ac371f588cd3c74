"""What is asked of a training that goes on: a checkpoint now, and perhaps the end after it.

The driver asks when it is told to stop; the controller before it restarts the workers as more of them, and when a
node of theirs has notice to go. A small actor holds the newest order; rank 0 looks at it from a thread, so that no
step waits for it, and the loop agrees on it over all ranks in a reduction that it makes anyway.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Literal

import ray
import ray.exceptions

from sclip.launch.cluster import beside_driver

__all__ = ["Attention", "Orders"]

Kind = Literal["checkpoint", "stop"]
_LOOK_EVERY_S = 0.5


class Orders:
    """A handle of the board that orders stand on; goes from process to process."""

    def __init__(self) -> None:
        self._board: Any = ray.remote(**beside_driver())(_Board).remote()

    def give(self, kind: Kind) -> int:
        """Ask for a checkpoint, or for one and the end; return the order's number."""
        return int(ray.get(self._board.give.remote(kind)))

    def newest(self) -> tuple[int, str]:
        """Return number and kind of the newest order that was not carried out, or (0, "")."""
        number, kind = ray.get(self._board.newest.remote())
        return int(number), str(kind)

    def carried_out(self, number: int) -> None:
        """Tell that an order, and those before it, were carried out."""
        self._board.carried_out.remote(number)

    def wait(self, number: int, timeout_s: float) -> bool:
        """Return whether an order was carried out, as soon as it was, or else after the time."""
        ended = threading.Event()
        for _ in range(int(timeout_s / _LOOK_EVERY_S)):
            if int(ray.get(self._board.last_carried_out.remote())) >= number:
                return True
            ended.wait(_LOOK_EVERY_S)
        return False

    def streams_through(self, coordinator: Any) -> None:
        """Say which actor splits the stream of the workers that are about to start."""
        ray.get(
            self._board.streams_through.remote([coordinator])
        )  # in a list: an argument alone is waited for

    def end_stream(self) -> None:
        """End that actor, and with it every encoder and reader of the stream, whose CPUs other workers may need."""
        ray.get(self._board.end_stream.remote())

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._board)


class _Board:
    def __init__(self) -> None:
        self._number, self._kind, self._done = 0, "", 0
        self._coordinators: list[Any] = []

    def streams_through(self, coordinators: list[Any]) -> None:
        self._coordinators = coordinators

    def end_stream(self) -> None:
        for coordinator in self._coordinators:
            ray.kill(coordinator)
        self._coordinators = []

    def give(self, kind: str) -> int:
        self._number += 1
        if not (self._kind == "stop" and self._done < self._number - 1):  # the end is not taken back
            self._kind = kind
        return self._number

    def newest(self) -> tuple[int, str]:
        return (self._number, self._kind) if self._done < self._number else (0, "")

    def carried_out(self, number: int) -> None:
        self._done = max(self._done, number)

    def last_carried_out(self) -> int:
        return self._done


class Attention:
    """What rank 0 knows of the orders; the other ranks hear it from rank 0."""

    def __init__(self, orders: Orders | None) -> None:
        self._orders = orders
        self._newest: tuple[int, str] = (0, "")
        self._heard = self._answered = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="orders", daemon=True)
        if orders is not None:
            self._thread.start()

    def _look(self) -> None:
        assert self._orders is not None
        while not self._ended.wait(_LOOK_EVERY_S):
            # Else the board was killed and starts again, or does not answer for a moment.
            with contextlib.suppress(ray.exceptions.RayError):
                self._newest = self._orders.newest()

    def hear(self) -> tuple[int, int]:
        """Return 1 where a checkpoint is asked for, and 1 where it is to be the last."""
        number, kind = self._newest
        self._heard = number
        asked = number > self._answered
        return int(asked), int(asked and kind == "stop")

    def answer(self) -> None:
        """Tell that a checkpoint is whole which was begun since the last `hear`."""
        if self._orders is not None and self._heard > self._answered:
            self._orders.carried_out(self._heard)
            self._answered = self._heard

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._orders is not None:
            self._thread.join()
