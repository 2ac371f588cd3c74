"""Size a run: what its stages reserve, how many workers and encoders a cluster holds, and whether all of it fits.

    config, Capacity -> sized config -> demands by stage -> minimum and maximum encoders, or a ConfigError

A sized config is one that `sized` returned: its number of workers is chosen. The stages are the workers, the evaluation
during training, the readers and the encoders. Each stream of a worker needs one reader and one encoder of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sclip.config import Config, ConfigError
from sclip.data.stream import streams_of_worker
from sclip.launch.node_types import NodeType
from sclip.launch.placement import Bundle, place_bundles

_WORKERS_SHARE = 0.5
"""Maximum share of a GPU node's CPUs for workers if CPUs are short. Encoders need the rest to supply the GPUs."""
_EPSILON = 1e-6  # for sums of fractional CPUs or GPUs


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs of a cluster at its maximum size."""

    cpus: float
    gpus: float
    nodes: tuple[NodeType, ...] = ()
    """Node types of the cluster; empty if unknown."""

    @classmethod
    def of(cls, *nodes: NodeType) -> Capacity:
        """Return the capacity of these node types, each with its maximum number of nodes."""
        return cls(sum(n.most * n.cpus for n in nodes), sum(n.most * n.gpus for n in nodes), nodes)


def sized(config: Config, capacity: Capacity) -> Config:
    """Return the config with `train.num_workers` chosen for this cluster if it is 0, and `train.use_gpu` if it is None.

    If `train.num_workers` is 0, each GPU gets a worker; without any GPU, one worker runs on CPUs. If CPUs are short,
    `train.worker_cpus` of these GPU workers is lowered.
    """
    train = config.train
    gpus = gpus_for_workers(config, capacity)
    use_gpu = gpus >= max(1, fewest_workers(config)) if train.use_gpu is None else train.use_gpu
    workers, worker_cpus = train.num_workers, train.worker_cpus
    if not workers:
        workers = max(1, min(gpus, train.batch_size)) if use_gpu else 1
        cpus_per_gpu = min((n.cpus / n.gpus for n in capacity.nodes if n.gpus), default=worker_cpus)
        planned = dataclasses.replace(config, train=dataclasses.replace(train, use_gpu=use_gpu))
        other_cpus, _ = _total(
            [b for b in demands(planned, workers, config.data.actors_min) if b.stage != "workers"]
        )
        # CPUs are short if too few would remain for the other stages, or if a node has too few for its GPUs.
        crowded = workers * worker_cpus > capacity.cpus - other_cpus + _EPSILON or worker_cpus > cpus_per_gpu
        if use_gpu and crowded:
            worker_cpus = max(0.01, math.floor(100 * min(worker_cpus, _WORKERS_SHARE * cpus_per_gpu)) / 100)
    train = dataclasses.replace(train, num_workers=workers, use_gpu=use_gpu, worker_cpus=worker_cpus)
    return dataclasses.replace(config, train=train)


def fewest_workers(config: Config) -> int:
    """Return the minimum number of workers with which a run can begin."""
    return config.train.min_workers or config.train.num_workers


def gpus_for_workers(config: Config, capacity: Capacity) -> int:
    """Return the number of GPUs that remain for workers after the evaluation during training has reserved its GPUs."""
    evaluation = math.ceil(config.evaluate.gpus) if config.evaluate.every else 0
    return math.floor(capacity.gpus + _EPSILON) - evaluation


def demands(config: Config, workers: int, encoders: int) -> list[Bundle]:
    """Return a bundle for each stage of a sized config: its processes and what they reserve. GPU stages come first."""
    train, data, evaluate = config.train, config.data, config.evaluate
    bundles = [Bundle("workers", workers, train.worker_cpus, 1.0 if train.use_gpu else 0.0)]
    if evaluate.every:
        bundles.append(Bundle("evaluation", 1, evaluate.cpus, evaluate.gpus))
    streams = _streams(config, workers)
    return [
        *bundles,
        Bundle("readers", streams, data.read_cpus),
        Bundle("encoders", max(encoders, streams), data.actor_cpus),
    ]


def _streams(config: Config, workers: int) -> int:
    return max(1, workers) * streams_of_worker(config)  # 0 workers: not chosen yet


def _total(bundles: Sequence[Bundle]) -> tuple[float, float]:
    return sum(b.count * b.cpus for b in bundles), sum(b.count * b.gpus for b in bundles)


def fits(config: Config, workers: int, capacity: Capacity) -> bool:
    """Return whether the cluster has room for this many workers and for all other stages of a sized config."""
    bundles = demands(config, workers, config.data.actors_min)
    cpus, gpus = _total(bundles)
    if cpus > capacity.cpus + _EPSILON or gpus > capacity.gpus + _EPSILON:
        return False
    return not (capacity.nodes and place_bundles(bundles, capacity.nodes).unplaced)


def most_encoders(config: Config, cpus: float) -> int:
    """Return how many encoders fit into `cpus` beside the run's other stages; at least data.actors_min."""
    other_cpus, _ = _total([b for b in demands(config, config.train.num_workers, 0) if b.stage != "encoders"])
    return max(config.data.actors_min, math.floor((cpus - other_cpus) / config.data.actor_cpus + _EPSILON))


def runs_at_once(config: Config, capacity: Capacity, driver_cpus: float) -> int:
    """Return how many runs of this sized config the cluster can hold, each with its driver; at least 1."""
    cpus, gpus = _total(demands(config, config.train.num_workers, config.data.actors_min))
    runs = capacity.cpus / (cpus + driver_cpus)
    return max(1, math.floor((min(runs, capacity.gpus / gpus) if gpus else runs) + _EPSILON))


def encoder_bounds(config: Config, capacity: Capacity) -> tuple[int, int]:
    """Return the minimum and maximum number of encoders on this cluster. The config comes from `sized`.

    Raises ConfigError if the cluster can never hold the run with its fewest workers (Ray would wait forever), or if
    train.num_workers is above data.open_shards.
    """
    if (workers := config.train.num_workers) > config.data.open_shards:
        raise ConfigError(
            f"train.num_workers={workers}: each worker needs an open shard of its own, but only data.open_shards="
            f"{config.data.open_shards} shards are open at a time; raise data.open_shards to {workers} or more"
        )
    fewest = demands(config, fewest_workers(config), config.data.actors_min)
    _check_total(config, fewest, capacity)
    if capacity.nodes:
        _check_nodes(config, fewest, capacity.nodes)
    least = max(config.data.actors_min, _streams(config, fewest_workers(config)))
    most = config.data.actors_max or most_encoders(config, capacity.cpus)
    return least, max(least, most, _streams(config, workers))


def _check_total(config: Config, bundles: Sequence[Bundle], capacity: Capacity) -> None:
    cpus, gpus = _total(bundles)
    evaluate_cpus, evaluate_gpus = _total([b for b in bundles if b.stage == "evaluation"])
    key = f"{_workers_key(config)}={fewest_workers(config)}"
    if cpus > capacity.cpus + _EPSILON:
        terms = [f"{b.count} {b.stage} x {b.cpus:g}" for b in bundles if b.stage != "evaluation"]
        terms += [f"{evaluate_cpus:g} for evaluate.cpus"] if evaluate_cpus else []
        raise ConfigError(
            f"{key}: the run needs {cpus:g} CPUs ({' + '.join(terms)}), but the cluster has {capacity.cpus:g}; "
            f"lower {_either(config, 'train.num_workers', 'train.worker_cpus', 'data.readers', 'data.actor_cpus')}, "
            "or add nodes"
        )
    if gpus > capacity.gpus + _EPSILON:
        raise ConfigError(
            f"{key}: with train.use_gpu=true each worker needs a GPU"
            + (f" and the evaluation needs evaluate.gpus={evaluate_gpus:g}" if evaluate_gpus else "")
            + f", but the cluster has {capacity.gpus:g} GPUs; lower train.num_workers or add nodes"
        )


def _check_nodes(config: Config, bundles: Sequence[Bundle], nodes: Sequence[NodeType]) -> None:
    unplaced = place_bundles(bundles, nodes).unplaced
    for bundle in bundles:
        if bundle.stage not in unplaced:
            continue
        keys = {
            "workers": f"{_workers_key(config)} or train.worker_cpus",
            "evaluation": "evaluate.cpus or evaluate.gpus",
            "readers": _either(config, "data.readers", "data.read_cpus"),
            "encoders": _either(config, "data.actors_min", "data.readers", "data.actor_cpus"),
        }
        needs = f"{bundle.cpus:g} CPUs" + (f" and {bundle.gpus:g} GPUs" if bundle.gpus else "")
        has = ", ".join(f"{n.most} x ({n.cpus:g} CPUs and {n.gpus:g} GPUs)" for n in nodes)
        raise ConfigError(
            f"{unplaced[bundle.stage]} of {bundle.count} {bundle.stage} fit on no node: each needs {needs} on a single "
            f"node, but the cluster's nodes are {has}; lower {keys[bundle.stage]}, or add nodes"
        )


def _workers_key(config: Config) -> str:
    return "train.min_workers" if config.train.min_workers else "train.num_workers"


def _either(config: Config, *keys: str) -> str:
    """Return the keys that the user could lower, as "A, B or C"; data.readers only if a worker has several streams."""
    *rest, last = [key for key in keys if key != "data.readers" or streams_of_worker(config) > 1]
    return f"{', '.join(rest)} or {last}" if rest else last
