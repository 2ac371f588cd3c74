"""What a training run is, the same on every rank: its config, the order of its shards and where it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sclip.config import Config
from sclip.data.schedule import Schedule
from sclip.storage.place import Place

__all__ = ["TrainJob"]


@dataclass(frozen=True, repr=False)
class TrainJob:
    """One run to train; without a repr, because a launcher may show it and the config may hold credentials."""

    config: Config
    schedule: Schedule
    shards: tuple[tuple[str, ...], ...]
    """Names of the shards of each source, without credentials."""
    image_size: int
    folder: Place
    samples: int
    """Samples of all epochs together, by which the learning rate's schedule runs."""

    def shard(self, entry: int) -> str:
        """Return the name of the shard that an entry of the schedule reads."""
        visit = self.schedule.visit(entry)
        return self.shards[visit.source][visit.shard]

    def location(self, entry: int) -> dict[str, Any]:
        """Return source, pass and shard of an entry of the schedule, as the quarantine names them."""
        visit = self.schedule.visit(entry)
        return {"source": visit.source, "pass": visit.pass_, "shard": self.shards[visit.source][visit.shard]}
