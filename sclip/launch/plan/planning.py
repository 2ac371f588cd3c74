"""The plan of a run: which stage gets what, on which nodes, how fast and how long, for what price.

readers -> encoders -> workers        the slowest of the three is the rate of the run
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sclip.config import Config
from sclip.launch.capacity import Capacity, demands, fewest_workers, gpus_for_workers
from sclip.launch.node_types import NodeType
from sclip.launch.placement import Placement, place_bundles
from sclip.launch.plan.price_table import Prices
from sclip.launch.plan.rates import Rates, find

__all__ = ["NodeCount", "Plan", "Stage", "make"]


@dataclass(frozen=True)
class Stage:
    """A part of the run and what it gets."""

    name: str
    what: str
    """Number and kind of its processes, in words."""
    cpus: float
    """Maximum CPUs reserved by the whole stage."""
    gpus: float
    """Maximum GPUs reserved by the whole stage."""
    on: tuple[str, ...]
    """Node types that the whole stage lies on."""
    per_s: float | None
    """Samples a second of the whole stage; None where nothing is known."""
    source: str
    """How the rate is known."""


@dataclass(frozen=True)
class NodeCount:
    """How many nodes of one type a run uses."""

    kind: NodeType
    start: int
    """Nodes in use at the minimum encoder count, including running ones."""
    most: int
    """Nodes in use at the maximum encoder count."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    config: Config
    """With workers and GPUs as the cluster has them."""
    encoders: tuple[int, int]
    """Fewest and most encoder actors."""
    stages: tuple[Stage, ...]
    nodes: tuple[NodeCount, ...]
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
    def cost(self) -> float | None:
        """What those nodes cost over the expected hours; None where either is not known."""
        return None if self.hourly is None or self.hours is None else self.hourly * self.hours

    @property
    def hourly(self) -> float | None:
        """What the nodes cost in an hour, at their most."""
        return (
            self.prices.hourly({nodes.kind.name: nodes.most for nodes in self.nodes}) if self.prices else None
        )


def make(
    config: Config, capacity: Capacity, encoders: tuple[int, int], samples: int, known: Rates, prices: Prices | None,
    annotated: bool = False,
) -> Plan:  # fmt: skip
    """Return the plan of a sized config that fits on a cluster.

    Args:
        config: as `sclip.launch.capacity.sized` returns it.
        capacity: of the cluster.
        encoders: fewest and most, as `sclip.launch.capacity.encoder_bounds` returns them.
        samples: of all epochs together.
        known: rates that the user gave.
        prices: of the node types, where there is a table.
        annotated: whether graphs and negatives are read from the shards.
    """
    # Elastic workers are asked for all of them, too, and begin with those that there is room for.
    fewest, most = (
        place_bundles(demands(config, config.train.num_workers, count), capacity.nodes) for count in encoders
    )
    used = [kind for kind in capacity.nodes if most.nodes.get(kind.name)]
    nodes = tuple(NodeCount(kind, fewest.nodes.get(kind.name, 0), most.nodes[kind.name]) for kind in used)
    accelerators = {n.accelerator for n in used if n.name in most.by_stage["workers"] and n.accelerator}
    rates = find(config, known, accelerators, annotated)
    notes = _notes(config, capacity, nodes, prices)
    return Plan(
        config, encoders, _stages(config, encoders, most, rates), nodes, samples, prices, tuple(notes)
    )


def _stages(
    config: Config, encoders: tuple[int, int], placement: Placement, rates: Rates
) -> tuple[Stage, ...]:
    train = config.train
    planned = {b.stage: b for b in demands(config, train.num_workers, encoders[1])}
    count = {name: bundle.count for name, bundle in planned.items()}
    for name in ("workers", "encoders"):
        count[name] -= placement.unplaced.get(name, 0)
    actors = f"{_range(encoders[0], count['encoders'])} actor{'s' if count['encoders'] > 1 else ''}"
    workers = f"{_range(fewest_workers(config), count['workers'])} on {'GPU' if train.use_gpu else 'CPU'}s"
    descriptions = {
        "readers": f"{count['readers']}, and as many for the next round",
        "encoders": actors,
        "workers": f"{workers}, {train.sharding}, {train.precision}",
        "evaluation": f"every {config.evaluate.every:,} steps",
    }

    def stage(name: str) -> Stage:
        number, bundle, rate = count[name], planned[name], rates.get(name.removesuffix("s"))
        on = tuple(placement.by_stage[name])
        per_s, source = (rate.per_s * number, rate.source) if rate else (None, "")
        return Stage(name, descriptions[name], number * bundle.cpus, number * bundle.gpus, on, per_s, source)

    return tuple(stage(name) for name in descriptions if name in planned)


def _range(fewest: int, most: int) -> str:
    return f"{most}" if fewest >= most else f"{fewest}..{most}"


def _notes(
    config: Config, capacity: Capacity, nodes: tuple[NodeCount, ...], prices: Prices | None
) -> list[str]:
    notes = []
    idle = gpus_for_workers(config, capacity) - (config.train.num_workers if config.train.use_gpu else 0)
    if idle > 0:
        notes.append(f"{idle} GPUs stand still; train.num_workers=0 with train.use_gpu=null takes them all")
    if prices and (missing := prices.missing({n.kind.name: n.most for n in nodes})):
        notes.append(f"no price for {', '.join(missing)}")
    return notes
