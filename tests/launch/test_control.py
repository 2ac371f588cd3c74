"""Requests to a running training: which is pending, and which rank 0 sees. The actor runs in this process."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray.exceptions

from sclip.launch.control import RequestPoller, _ControlActor
from sclip.train.launcher import Requested


class LocalControl:
    """A control whose actor is an object in this process; its first calls fail."""

    def __init__(self) -> None:
        self.actor, self.failures = _ControlActor(), 2
        self.polled = threading.Event()
        self.fulfil = self.actor.fulfil

    def pending(self) -> tuple[int, str]:
        if self.failures:
            self.failures -= 1
            raise ray.exceptions.RayActorError()
        pending = self.actor.pending()
        if pending[0]:
            self.polled.set()
        return pending


def test_the_newest_request_is_pending_until_fulfilled_and_a_stop_request_outlives_later_ones() -> None:
    actor = _ControlActor()
    assert actor.pending() == (0, "")
    assert [actor.request("checkpoint"), actor.request("checkpoint")] == [1, 2]
    actor.fulfil(1)
    assert actor.pending() == (2, "checkpoint")
    actor.fulfil(2)
    actor.fulfil(1)  # from a late rank
    assert (actor.pending(), actor.last_fulfilled()) == ((0, ""), 2)
    assert [actor.request("stop"), actor.request("checkpoint")] == [3, 4]
    assert actor.pending() == (4, "stop")
    actor.fulfil(4)
    actor.request("checkpoint")
    assert actor.pending() == (5, "checkpoint")


def test_rank_0_sees_a_request_until_its_checkpoint_is_complete() -> None:
    control: Any = LocalControl()
    with contextlib.closing(RequestPoller(control)) as poller:
        assert poller.newest() == Requested()
        control.actor.request("stop")
        assert control.polled.wait(60)
        while poller.newest() != Requested(checkpoint=True, stop=True):
            pass
        poller.fulfil()
        assert poller.newest() == Requested()
        assert control.actor.last_fulfilled() == 1
