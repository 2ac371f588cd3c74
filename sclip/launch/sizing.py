"""How many workers a run has, and on what, where its config leaves that to the cluster; the same config said out.

A GPU stands still unless a worker has it, so by default each gets one. Without any GPU there is one worker, on CPUs.
"""

from __future__ import annotations

import dataclasses
import math

from sclip.config import Config
from sclip.launch.cluster import Capacity

__all__ = ["sized"]

_WORKERS_SHARE = 0.5
"""Of the CPUs beside GPUs, where workers would leave the encoders none: one GPU takes what many encoders make."""


def sized(config: Config, capacity: Capacity) -> Config:
    """Return the config with `train.num_workers` and `train.use_gpu` as this cluster has them.

    What the config says stays. With `train.num_workers=0` workers also reserve fewer CPUs than `train.worker_cpus`,
    where a node has too few of them for its GPUs or nothing would be left for the encoders.
    """
    train, evaluate = config.train, config.evaluate
    gpus = math.floor(capacity.gpus + 1e-6) - (math.ceil(evaluate.gpus) if evaluate.every else 0)
    use_gpu = (
        gpus >= max(1, train.min_workers or train.num_workers) if train.use_gpu is None else train.use_gpu
    )
    workers, worker_cpus = train.num_workers, train.worker_cpus
    if not workers:
        workers = max(1, min(gpus, train.batch_size)) if use_gpu else 1
        of_a_gpu = min((kind.cpus / kind.gpus for kind in capacity.nodes if kind.gpus), default=worker_cpus)
        crowded = workers * worker_cpus > capacity.cpus - _beside(config) + 1e-6 or worker_cpus > of_a_gpu
        if use_gpu and crowded:
            worker_cpus = max(0.01, math.floor(100 * min(worker_cpus, _WORKERS_SHARE * of_a_gpu)) / 100)
    said = dataclasses.replace(train, num_workers=workers, use_gpu=use_gpu, worker_cpus=worker_cpus)
    return dataclasses.replace(config, train=said)


def _beside(config: Config) -> float:
    """Return the CPUs that are needed beside the workers at least."""
    data, evaluate = config.data, config.evaluate
    return data.actors_min * data.actor_cpus + data.read_cpus + (evaluate.cpus if evaluate.every else 0.0)
