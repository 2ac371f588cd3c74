"""Choose the number of streams of each worker, if the config does not set it.

sized config, Capacity, rates -> the config with `data.readers`
"""

from __future__ import annotations

import dataclasses
import math
import sys

from sclip.config import Config
from sclip.launch.capacity import Capacity, fits, gpus_for_workers, most_encoders
from sclip.launch.plan.rates import Rates


def with_streams(config: Config, capacity: Capacity, rates: Rates, shards: int = sys.maxsize) -> Config:
    """Return a sized config with `data.readers` chosen, unless it is set.

    Choose the smallest number of streams that brings a GPU the most samples per second, among those that the cluster
    has room for. Choose one stream if workers have no GPU, if a worker's rate is unknown, or if there is no room.

    Args:
        config: the config that `sclip.launch.capacity.sized` returned.
        capacity: capacity of the cluster.
        rates: known rates of the stages.
        shards: number of all shards; the default sets no limit, for shards that are not counted yet.
    """
    if config.data.readers:
        return config
    if not config.train.use_gpu or "worker" not in rates:
        return _with(config, 1)
    worker, reader, encoder = (rates[stage].per_s for stage in ("worker", "reader", "encoder"))
    # An elastic run may request more workers than there are GPUs.
    workers = min(config.train.num_workers, max(1, gpus_for_workers(config, capacity)))

    def per_s(streams: int) -> float:
        encoders = config.data.actors_max or most_encoders(_with(config, streams), capacity.cpus)
        return min(worker, streams * min(reader, encoders // (workers * streams) * encoder))

    most = min(math.ceil(worker / reader), min(config.data.open_shards, shards) // workers)
    placeable = [n for n in range(1, most + 1) if fits(_with(config, n), workers, capacity)]
    return _with(config, max(placeable, key=lambda streams: (per_s(streams), -streams), default=1))


def _with(config: Config, readers: int) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, readers=readers))
