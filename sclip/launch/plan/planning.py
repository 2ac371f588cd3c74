"""Plan a run: what each stage reserves on which nodes, how fast the run is, how long it takes, what it costs.

    readers -> encoders -> executors -> workers        the slowest stage sets the rate of the run

An executor is the Ray Data process that passes on the blocks of one stream; it reserves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sclip.config import Config
from sclip.data.stream import streams_of_worker
from sclip.launch.capacity import Capacity, demands, encoder_bounds, fewest_workers, gpus_for_workers
from sclip.launch.node_types import NodeType
from sclip.launch.placement import Bundle, Placement, place_bundles
from sclip.launch.plan.memory import Memory
from sclip.launch.plan.price_table import Prices
from sclip.launch.plan.rates import BLOCKS_PER_S, Rates, block_samples, find
from sclip.launch.plan.streams import with_streams
from sclip.model.build import meta_model, parameter_count, unpackable_reason
from sclip.train.sharding import needs_autocast, resolve


@dataclass(frozen=True)
class Stage:
    """One stage of the run, with its rate and the maximum CPUs and GPUs that all its processes together reserve."""

    name: str
    what: str
    """Number and kind of the stage's processes, in words."""
    cpus: float
    gpus: float
    on: tuple[str, ...]
    """Node types that the stage runs on."""
    per_s: float | None
    """Samples per second of the whole stage; None if unknown."""
    source: str
    """Where the rate comes from, in words."""


@dataclass(frozen=True)
class NodeCount:
    """Number of nodes of one type during a run: the living nodes, and those that the autoscaler adds for the run."""

    kind: NodeType
    start: int
    """Nodes at the minimum encoder count, including all running ones."""
    most: int
    """Nodes at the maximum encoder count, including all running ones."""


@dataclass(frozen=True)
class Plan:
    """Stages, nodes, duration and cost that are expected of a run."""

    config: Config
    """The run's config, with workers, GPUs and streams chosen for the cluster."""
    encoders: tuple[int, int]
    """Minimum and maximum number of encoder actors."""
    stages: tuple[Stage, ...]
    nodes: tuple[NodeCount, ...]
    samples: int
    """Number of samples of all epochs together."""
    prices: Prices | None
    notes: tuple[str, ...]
    memory: Memory | None = None
    """Memory that a step needs on each GPU; None if it is unknown."""

    @property
    def limit(self) -> Stage | None:
        """The slowest stage among those with a known rate; None if no rate is known."""
        return _slowest(self.stages)

    @property
    def bound_only(self) -> bool:
        """Whether `per_s` is only an upper bound, because the rate of the stage "workers" is unknown."""
        return any(stage.name == "workers" and not stage.per_s for stage in self.stages)

    @property
    def per_s(self) -> float | None:
        """Expected samples per second."""
        return self.limit.per_s if self.limit else None

    @property
    def step_s(self) -> float | None:
        """Expected seconds of a step at the rate of the workers alone; None if it is unknown."""
        per_s = next((stage.per_s for stage in self.stages if stage.name == "workers"), None)
        return self.config.train.batch_size / per_s if per_s else None

    @property
    def hours(self) -> float | None:
        """Expected hours of training at the rate `per_s`, without start, checkpoints and evaluation."""
        return self.samples / self.per_s / 3600 if self.per_s else None

    @property
    def cost(self) -> float | None:
        """Cost of the nodes over the expected hours; None if price or hours are unknown."""
        return None if self.hourly is None or self.hours is None else self.hourly * self.hours

    @property
    def hourly(self) -> float | None:
        """Cost per hour of the maximum number of nodes; None without prices."""
        return (
            self.prices.hourly({nodes.kind.name: nodes.most for nodes in self.nodes}) if self.prices else None
        )


def make(
    config: Config, capacity: Capacity, shards: int, samples: int, known: Rates, prices: Prices | None,
    annotated: bool = False,
) -> Plan:  # fmt: skip
    """Return the plan of a sized config on a cluster. Raises ConfigError if the run does not fit on the cluster.

    Args:
        config: the config that `sclip.launch.capacity.sized` returned.
        capacity: capacity of the cluster.
        shards: number of all shards.
        samples: number of samples of all epochs together.
        known: rates that the user gave.
        prices: prices of the node types, if there is a table.
        annotated: whether graphs and negatives are read from the shards; if not, encoders make them.
    """
    rates = find(config, capacity, known, annotated)
    config = with_streams(config, capacity, rates, shards)
    encoders = encoder_bounds(config, capacity)
    # An elastic run also requests all its workers, and begins with as many as fit.
    fewest, most = (
        place_bundles(demands(config, config.train.num_workers, count), capacity.nodes) for count in encoders
    )
    used = [kind for kind in capacity.nodes if most.nodes.get(kind.name)]
    nodes = tuple(NodeCount(kind, fewest.nodes.get(kind.name, 0), most.nodes[kind.name]) for kind in used)
    stages = _stages(config, encoders, most, rates, capacity)
    notes = [*_remedies(config, stages), *_notes(config, capacity, nodes, prices)]
    return Plan(config, encoders, stages, nodes, samples, prices, tuple(notes))


def _slowest(stages: Iterable[Stage]) -> Stage | None:
    known = [stage for stage in stages if stage.per_s]
    return min(known, key=lambda stage: stage.per_s or math.inf, default=None)


def _stages(
    config: Config, encoders: tuple[int, int], placement: Placement, rates: Rates, capacity: Capacity
) -> tuple[Stage, ...]:
    train = config.train
    planned = {b.stage: b for b in demands(config, train.num_workers, encoders[1])}
    planned["executors"] = Bundle("executors", 0, 0.0)
    count = {name: bundle.count for name, bundle in planned.items()}
    for name in ("workers", "encoders"):
        count[name] -= placement.unplaced.get(name, 0)
    count["readers"] = count["executors"] = streams = max(1, count["workers"]) * streams_of_worker(config)
    count["encoders"] = max(1, count["encoders"] // streams) * streams  # the same number for each stream
    actors = f"{_range(encoders[0], count['encoders'])} actor{'s' if count['encoders'] > 1 else ''}"
    workers = f"{_range(fewest_workers(config), count['workers'])} on {'GPU' if train.use_gpu else 'CPU'}s"
    on_nodes = [kind for kind in capacity.nodes if placement.by_stage["workers"].get(kind.name)]
    ranks_of_node = int(min((kind.gpus for kind in on_nodes), default=0)) or 1
    sharding, group = resolve(
        train, parameter_count(config.model), count["workers"], ranks_of_node,
        autocast=needs_autocast(meta_model(config.model)),
    )  # fmt: skip
    descriptions = {
        "readers": f"{streams}, {streams_of_worker(config)} a worker",
        "encoders": actors,
        "executors": f"{streams}, {streams * BLOCKS_PER_S:,} blocks/s of {block_samples(config):,} samples",
        "workers": f"{workers}, {sharding}{f' groups of {group}' if group else ''}, {train.precision}",
        "evaluation": f"every {config.evaluate.every:,} steps",
    }

    def stage(name: str) -> Stage:
        number, bundle, rate = count[name], planned[name], rates.get(name.removesuffix("s"))
        on = tuple(placement.by_stage["workers" if name == "executors" else name])
        per_s, source = (rate.per_s * number, rate.source) if rate else (None, "")
        return Stage(name, descriptions[name], number * bundle.cpus, number * bundle.gpus, on, per_s, source)

    return tuple(stage(name) for name in descriptions if name in planned)


def _remedies(config: Config, stages: Iterable[Stage]) -> list[str]:
    limit = _slowest(stages)
    name = limit.name if limit else ""
    if name == "executors":
        return ["for a higher rate, raise data.block_samples, data.readers or train.batch_size"]
    if name != "readers":
        return []
    streams = config.train.num_workers * streams_of_worker(config)
    tracks = f", and data.open_shards above {streams}" if streams >= config.data.open_shards else ""
    return [f"for a higher rate, raise data.readers{tracks}, or bring the shards nearer"]


def _range(fewest: int, most: int) -> str:
    return f"{most}" if fewest >= most else f"{fewest}..{most}"


def _notes(
    config: Config, capacity: Capacity, nodes: tuple[NodeCount, ...], prices: Prices | None
) -> list[str]:
    notes = []
    idle = gpus_for_workers(config, capacity) - (config.train.num_workers if config.train.use_gpu else 0)
    if idle > 0:
        notes.append(f"{idle} GPUs are idle; train.num_workers=0 with train.use_gpu=null uses all GPUs")
    if prices and (missing := prices.missing({n.kind.name: n.most for n in nodes})):
        notes.append(f"no price for {', '.join(missing)}")
    if config.train.pack_text and (reason := unpackable_reason(config.model)):
        notes.append(f"captions are padded and not packed: {reason}")
    return notes
