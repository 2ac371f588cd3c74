"""The Ray cluster that a run uses: attached to, or started here; and whether the run fits on it.

A driver inside a cluster (a submitted job, RAY_ADDRESS, a head on this machine) attaches to that cluster.
Only where there is none a local one starts, bound to loopback and ended with the program.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from sclip.config import Config, ConfigError
from sclip.launch import ray_internals
from sclip.launch.node_types import NodeType, declared, node_types


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs that a cluster has, or can grow to where it scales."""

    cpus: float
    gpus: float
    nodes: tuple[NodeType, ...] = ()
    """What they are of, where it is known."""


def connect() -> Capacity:
    """Attach to the cluster of this machine or job, or start a local one; return what it has.

    Raises ConfigError where RAY_ADDRESS names a cluster that does not answer: a run meant for a cluster must not
    begin on the machine that starts it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # after the environment: Ray reads it when it is imported

    ray_internals.disable_auto_connect()
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = ray_internals.default_address()
        if address == "local" or (not os.environ.get("RAY_ADDRESS") and not _listens(address)):
            address = None  # none, or one that was killed: Ray's note of its address outlives a head
        if address is None:
            _loopback()
            ray_internals.disable_worker_logs()
            # After a second without work Ray would kill a reader between two shards and start another, which costs
            # seconds of a core each time.
            os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
            ray_internals.init_on_loopback(include_dashboard=False, **quiet)
        else:
            ray_internals.send_token()
            try:
                if not _listens(address):  # Ray itself would try for minutes
                    raise ConnectionError("nothing listens there")
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"no Ray cluster answers at {address}: {str(error).strip().splitlines()[0]}; start one "
                    "(ray start --head), or unset RAY_ADDRESS and run `ray stop` to train on this machine alone"
                ) from error
    nodes = node_types(ray.nodes(), declared(ray.get_runtime_context().gcs_address))
    return Capacity(
        sum(kind.most * kind.cpus for kind in nodes), sum(kind.most * kind.gpus for kind in nodes), nodes
    )


def _listens(address: str | None) -> bool:
    """Tell whether something listens at HOST:PORT; of another kind of address, leave it to Ray to tell."""
    host, _, port = (address or "").rpartition(":")
    if "://" in host or not port.isdigit():
        return bool(address)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _loopback() -> None:
    """Keep a cluster that starts now on 127.0.0.1, workers and their collectives included, with a token of its own."""
    ray_internals.keep_on_loopback()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Of this cluster alone: Ray would write one into the home folder, for which every later head then asks.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def actor_bounds(config: Config, capacity: Capacity) -> tuple[int, int]:
    """Return the fewest and most encoder actors for a run on this cluster.

    Raises ConfigError with the arithmetic where the workers, one reader, the fewest actors and what evaluates beside
    them can never be placed together: Ray would wait for them for ever.
    """
    train, data = config.train, config.data
    fewest = train.min_workers or train.num_workers
    workers = fewest * train.worker_cpus
    actors = data.actors_min * data.actor_cpus
    beside, beside_gpus = (
        (config.evaluate.cpus, config.evaluate.gpus) if config.evaluate.every else (0.0, 0.0)
    )
    need = workers + actors + data.read_cpus + beside
    if need > capacity.cpus + 1e-6:
        raise ConfigError(
            f"train.{'min' if train.min_workers else 'num'}_workers={fewest}: the run needs {need:g} CPUs "
            f"({fewest} workers x {train.worker_cpus:g} + {data.actors_min} actors x "
            f"{data.actor_cpus:g} + {data.read_cpus:g} for a reader"
            + (f" + {beside:g} for evaluate.cpus" if beside else "")
            + f"), the cluster has {capacity.cpus:g}; "
            "lower train.num_workers, train.worker_cpus or data.actor_cpus, or add nodes"
        )
    gpus = (fewest if train.use_gpu else 0) + beside_gpus
    if gpus > capacity.gpus:
        raise ConfigError(
            f"train.{'min' if train.min_workers else 'num'}_workers={fewest}: a GPU each with train.use_gpu=true"
            + (f", {beside_gpus:g} with evaluate.gpus" if beside_gpus else "")
            + f", the cluster has {capacity.gpus:g}; lower train.num_workers or add nodes"
        )
    room = capacity.cpus - train.num_workers * train.worker_cpus - data.read_cpus - beside
    most = data.actors_max or math.floor(room / data.actor_cpus + 1e-6)
    return data.actors_min, max(data.actors_min, most)


def beside_driver() -> dict[str, Any]:
    """Return options of an actor that the driver cannot go on without: it lives on the driver's node, and as long.

    Ray would place an actor without CPUs anywhere, for instance on a spot node.
    """
    from ray import get_runtime_context
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
