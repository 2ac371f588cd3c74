"""The Ray cluster that a run uses: attached to, or started here.

A driver inside a cluster (a submitted job, RAY_ADDRESS, a head on this machine) attaches to that cluster.
Only where there is none a local one starts, bound to loopback and ended with the program.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from typing import Any

from sclip.config import ConfigError
from sclip.launch.capacity import Capacity
from sclip.launch.node_types import declared, node_types


def connect() -> Capacity:
    """Attach to the cluster of this machine or job, or start a local one; return what it has.

    Raises ConfigError where RAY_ADDRESS names a cluster that does not answer: a run meant for a cluster must not
    begin on the machine that starts it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # after the environment: Ray reads it when it is imported
    from ray._private import auto_init_hook, services, worker
    from ray._private.authentication import authentication_token_setup

    # What still goes on in a thread when the program ends must not start another cluster.
    auto_init_hook.enable_auto_connect = False
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        # Of `ray start` or of the job; not "auto", which would also enter another program's private Ray.
        address = services.get_ray_address_from_environment(None, None)
        if address == "local" or (not os.environ.get("RAY_ADDRESS") and not _listens(address)):
            address = None  # none, or one that was killed: Ray's note of its address outlives a head
        if address is None:
            _loopback()
            worker._worker_logs_enabled = False  # of two cores, a raylet says that many processes share them
            # Of a reader between two shards: after a second Ray would end it and start another, seconds of a core each.
            os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            # A head asks for a token wherever one exists; a driver must be told to send it, or waits for minutes.
            authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            try:
                if not _listens(address):  # Ray itself would try for minutes
                    raise ConnectionError("nothing listens there")
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"no Ray cluster answers at {address}: {str(error).strip().splitlines()[0]}; start one "
                    "(ray start --head), or unset RAY_ADDRESS and run `ray stop` to train on this machine alone"
                ) from error
    return Capacity.of(*node_types(ray.nodes(), declared(ray.get_runtime_context().gcs_address)))


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
    """Keep a cluster that starts now on 127.0.0.1, workers and their collectives included.

    Ray 2.60 replaces 127.0.0.1 by the machine's outer address and listens on every interface, unless the switch
    that it has for desktop firewalls is off; its name speaks of other systems, its effect does not.
    """
    from ray._private import ray_constants

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Of this cluster alone: Ray would write one into the home folder, for which every later head then asks.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def beside_driver() -> dict[str, Any]:
    """Return options of an actor that the driver cannot go on without: it lives on the driver's node, and as long.

    Ray would place an actor without CPUs anywhere, for instance on a spot node.
    """
    from ray import get_runtime_context
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
