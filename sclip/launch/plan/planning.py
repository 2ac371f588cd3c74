"""The plan of a run: which stage gets what, on which nodes, how fast and how long, for what price.

readers -> encoders -> workers        the slowest of the three is the rate of the run
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sclip.config import Config, ConfigError
from sclip.launch.cluster import Capacity
from sclip.launch.node_types import NodeType
from sclip.launch.plan.placement import Bundle, Placed, place
from sclip.launch.plan.prices import Prices
from sclip.launch.plan.rates import Rates, find

__all__ = ["Nodes", "Plan", "Stage", "make"]


@dataclass(frozen=True)
class Stage:
    """A part of the run and what it gets."""

    name: str
    what: str
    """How many of it, in words."""
    cpus: float
    """Of all of it at the most, as the GPUs."""
    gpus: float
    on: tuple[str, ...]
    """The node types that it lies on at the most."""
    per_s: float | None
    """Samples a second of all of it; None where nothing is known."""
    source: str
    """How that is known."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one type."""

    kind: NodeType
    start: int
    """Of them with the fewest encoders, those that are there included."""
    most: int
    """With the most."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    config: Config
    """Sized."""
    actors: tuple[int, int]
    stages: tuple[Stage, ...]
    nodes: tuple[Nodes, ...]
    samples: int
    """Of all epochs."""
    prices: Prices | None
    notes: tuple[str, ...]
    """What else there is to know, a line each."""

    @property
    def limit(self) -> Stage | None:
        """The slowest of the stages whose rate is known; None where none is."""
        known = [stage for stage in self.stages if stage.per_s]
        return min(known, key=lambda stage: stage.per_s or math.inf, default=None)

    @property
    def bound_only(self) -> bool:
        """Whether the rate is no estimate but only a bound, as nothing is known of the workers."""
        return any(stage.name == "workers" and not stage.per_s for stage in self.stages)

    @property
    def per_s(self) -> float | None:
        """Expected samples a second."""
        return self.limit.per_s if self.limit else None

    @property
    def hours(self) -> float | None:
        """Expected hours of training at that rate; without the start, checkpoints and evaluation."""
        return self.samples / self.per_s / 3600 if self.per_s else None

    @property
    def hourly(self) -> float | None:
        """What the nodes cost in an hour, at their most."""
        return (
            self.prices.hourly({nodes.kind.name: nodes.most for nodes in self.nodes}) if self.prices else None
        )


def make(
    config: Config, capacity: Capacity, actors: tuple[int, int], samples: int, known: Rates, prices: Prices | None,
    annotated: bool = False,
) -> Plan:  # fmt: skip
    """Return the plan of a sized config on a cluster.

    Args:
        config: with workers and GPUs said (`sclip.launch.sizing`).
        capacity: of the cluster.
        actors: fewest and most encoder actors.
        samples: of all epochs together.
        known: rates that the user gave.
        prices: of the node types, where there is a table.
        annotated: whether graphs and negatives are read from the shards.

    Raises ConfigError where a worker, a reader or an encoder has a place on no node: Ray would wait for one for ever.
    """
    least = place(_bundles(config, _fewest(config), actors[0]), capacity.nodes)
    if least.left_over:
        raise ConfigError(_homeless(config, least, capacity))
    # Elastic workers are asked for all of them, too, and begin with those that there is room for.
    fewest, most = (
        place(_bundles(config, config.train.num_workers, count), capacity.nodes) for count in actors
    )
    used = [kind for kind in capacity.nodes if most.nodes.get(kind.name)]
    nodes = tuple(Nodes(kind, fewest.nodes.get(kind.name, 0), most.nodes[kind.name]) for kind in used)
    of_workers = most.on["workers"]
    accelerators = {
        kind.accelerator for kind in capacity.nodes if kind.name in of_workers and kind.accelerator
    }
    rates = find(config, known, accelerators, annotated)
    notes = _notes(config, capacity, nodes, prices)
    return Plan(config, actors, _stages(config, actors, most, rates), nodes, samples, prices, tuple(notes))


def _fewest(config: Config) -> int:
    """Return the workers that the run begins with at least."""
    return config.train.min_workers or config.train.num_workers


def _bundles(config: Config, workers: int, actors: int) -> list[Bundle]:
    train, data, evaluate = config.train, config.data, config.evaluate
    found = [Bundle("workers", workers, train.worker_cpus, 1.0 if train.use_gpu else 0.0)]
    if evaluate.every:
        found.append(Bundle("evaluation", 1, evaluate.cpus, evaluate.gpus))
    # One reader is what the run cannot do without; as many as data.readers take what is left.
    found += [Bundle("readers", 1, data.read_cpus), Bundle("encoders", actors, data.actor_cpus)]
    return found


def _stages(config: Config, actors: tuple[int, int], placed: Placed, rates: Rates) -> tuple[Stage, ...]:
    train, data, evaluate = config.train, config.data, config.evaluate
    fewest, most = actors[0], actors[1] - placed.left_over.get("encoders", 0)

    def stage(name: str, what: str, count: int, cpus: float, gpus: float = 0.0) -> Stage:
        rate = rates.get(name.removesuffix("s"))
        total = rate.per_s * count if rate else None
        on = tuple(placed.on.get(name, {}))
        return Stage(name, what, count * cpus, count * gpus, on, total, rate.source if rate else "")

    workers = train.num_workers - placed.left_over.get("workers", 0)
    device = "GPU" if train.use_gpu else "CPU"
    found = [
        stage("readers", f"up to {data.readers}", data.readers, data.read_cpus),
        stage("encoders", f"{_range(fewest, most)} actor{'s' if most > 1 else ''}", most, data.actor_cpus),
        stage(
            "workers", f"{_range(_fewest(config), workers)} on {device}s, {train.sharding}, {train.precision}", workers,
            train.worker_cpus, 1.0 if train.use_gpu else 0.0,
        ),
    ]  # fmt: skip
    if evaluate.every:
        found.append(stage("evaluation", f"every {evaluate.every:,} steps", 1, evaluate.cpus, evaluate.gpus))
    return tuple(found)


def _range(fewest: int, most: int) -> str:
    return f"{most}" if fewest >= most else f"{fewest}..{most}"


def _notes(config: Config, capacity: Capacity, nodes: tuple[Nodes, ...], prices: Prices | None) -> list[str]:
    notes = []
    idle = math.floor(capacity.gpus) - (config.train.num_workers if config.train.use_gpu else 0)
    idle -= math.ceil(config.evaluate.gpus) if config.evaluate.every else 0
    if idle > 0:
        notes.append(f"{idle} GPUs stand still; train.num_workers=0 with train.use_gpu=null takes them all")
    if prices and (missing := prices.missing({n.kind.name: n.most for n in nodes})):
        notes.append(f"no price for {', '.join(missing)}")
    return notes


def _homeless(config: Config, placed: Placed, capacity: Capacity) -> str:
    stage = next(iter(placed.left_over))
    bundle = next(b for b in _bundles(config, _fewest(config), config.data.actors_min) if b.stage == stage)
    workers = "train.min_workers" if config.train.min_workers else "train.num_workers"
    keys = {
        "workers": f"{workers} or train.worker_cpus", "evaluation": "evaluate.cpus or evaluate.gpus",
        "readers": "data.read_cpus", "encoders": "data.actors_min or data.actor_cpus",
    }  # fmt: skip
    needs = f"{bundle.cpus:g} CPUs" + (f" and {bundle.gpus:g} GPUs" if bundle.gpus else "")
    has = "; ".join(f"{k.most} of {k.cpus:g} CPUs and {k.gpus:g} GPUs" for k in capacity.nodes)
    return (
        f"{placed.left_over[stage]} of the {bundle.count} {stage} have a place on no node: one needs {needs} of a "
        f"node, the cluster has {has}; lower {keys[stage]}, or add nodes"
    )
