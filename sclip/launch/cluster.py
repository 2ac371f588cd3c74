"""Attach to the Ray cluster that a run uses, or start a local one.

The driver attaches to a cluster if it is a submitted job, if RAY_ADDRESS is set, or if a head runs on this machine.
Otherwise it starts a local cluster, which listens on loopback only and ends with the program.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from typing import Any

from sclip.config import ConfigError
from sclip.launch import ray_internals
from sclip.launch.capacity import Capacity
from sclip.launch.node_types import declared, node_types


def connect() -> Capacity:
    """Attach to the cluster of this machine or job, or start a local one; return its capacity.

    Raises ConfigError if RAY_ADDRESS names a cluster that does not answer. Then no local cluster starts: a run that is
    meant for a cluster must not train on the machine that starts it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # after setting the environment, which Ray reads when it is imported

    ray_internals.disable_auto_connect()
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = ray_internals.default_address()
        if address == "local" or (not os.environ.get("RAY_ADDRESS") and not _listens(address)):
            address = None  # no cluster, or a killed head, which leaves the file with its address behind
        if address is None:
            _loopback()
            ray_internals.disable_worker_logs()
            # By default Ray kills a worker after one idle second. So it would kill readers between two shards, and
            # each new reader would cost seconds of a core.
            os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
            with ray_internals.leaves_signals_to_driver():
                ray_internals.init_on_loopback(include_dashboard=False, **quiet)
        else:
            ray_internals.send_token()
            try:
                if not _listens(address):  # Ray itself would keep trying for minutes
                    raise ConnectionError("nothing listens there")
                with ray_internals.leaves_signals_to_driver():
                    ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"no Ray cluster answers at {address}: {str(error).strip().splitlines()[0]}; start one "
                    "(ray start --head), or unset RAY_ADDRESS and run `ray stop` to train on this machine alone"
                ) from error
    return Capacity.of(*node_types(ray.nodes(), declared(ray.get_runtime_context().gcs_address)))


def _listens(address: str | None) -> bool:
    """Return whether something listens at HOST:PORT; True for other forms of address, which Ray itself checks."""
    host, _, port = (address or "").rpartition(":")
    if "://" in host or not port.isdigit():
        return bool(address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _loopback() -> None:
    """Make the next local cluster and its workers listen on 127.0.0.1 only, with an authentication token."""
    ray_internals.keep_on_loopback()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Without this token, Ray would write one to the home folder, and every later head would require that one.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def beside_driver() -> dict[str, Any]:
    """Return options that keep an actor on the driver's node and restart the actor if it dies.

    The driver depends on such actors. By default Ray may place an actor that reserves no CPUs even on a spot node.
    """
    from ray import get_runtime_context
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": strategy}
