"""Choose the number of streams of each worker, where the config leaves it to the cluster.

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
    """Return a sized config with `data.readers`; what the config says stays.

    A worker gets the fewest streams that bring its GPU the most samples a second. A stream needs a reader, an encoder
    and a track of shards for itself. It is one on CPUs, on GPUs of unknown rate, and where there is room for no more.

    Args:
        config: as `sclip.launch.capacity.sized` returns it.
        capacity: of the cluster.
        rates: what is known of the stages.
        shards: number of all shards, where they are counted.
    """
    if config.data.readers:
        return config
    if not config.train.use_gpu or "worker" not in rates:
        return _with(config, 1)
    worker, reader, encoder = (rates[stage].per_s for stage in ("worker", "reader", "encoder"))
    # Elastic workers may be more than there are GPUs.
    workers = min(config.train.num_workers, max(1, gpus_for_workers(config, capacity)))

    def per_s(streams: int) -> float:
        encoders = config.data.actors_max or most_encoders(_with(config, streams), capacity.cpus)
        return min(worker, streams * min(reader, encoders // (workers * streams) * encoder))

    most = min(math.ceil(worker / reader), min(config.data.open_shards, shards) // workers)
    placeable = [n for n in range(1, most + 1) if fits(_with(config, n), workers, capacity)]
    return _with(config, max(placeable, key=lambda streams: (per_s(streams), -streams), default=1))


def _with(config: Config, readers: int) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, readers=readers))
