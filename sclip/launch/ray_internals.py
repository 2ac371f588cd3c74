"""Every private name of Ray that this package uses, each in a function that says what it is for.

Ray may change a private name in any release. `tests/launch/test_ray_internals.py` asserts of each function that it
does in the installed Ray what its docstring says; no other module of `sclip` may import a private name. Imports stand
in the functions: `connect` sets environment variables that Ray reads when it is imported, and some of these modules
cost seconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

# Connecting


def disable_auto_connect() -> None:
    """Keep Ray's API calls from starting a cluster when this process has none.

    A thread that still runs when the program has disconnected would otherwise start another cluster. Ray's public
    switch, RAY_ENABLE_AUTO_CONNECT, is read when Ray is imported, which may have happened already.
    """
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False


def default_address() -> str | None:
    """Return the address of the cluster that `ray start` or a job announced to this machine, or None.

    `ray.init("auto")` does the same look-up, but also enters another program's private cluster and, for a head
    that was killed, tries to connect for minutes.
    """
    from ray._private import services

    address = services.get_ray_address_from_environment(None, None)
    return None if address is None else str(address)


def send_token() -> None:
    """Let this driver send the authentication token that it has, if there is one.

    A head requires the token wherever one exists, but a driver sends it only with RAY_AUTH_MODE=token, which Ray
    reads when it is imported; without it the connection attempt lasts minutes.
    """
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def is_token_required() -> bool:
    """Return whether this process's Ray authenticates with a token; no public function says so."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def disable_worker_logs() -> None:
    """Silence the logs that a cluster prints in this driver, such as a raylet's warning about many workers.

    Ray prints that warning also with `log_to_driver=False`, which covers the output of workers alone.
    """
    from ray._private import worker

    worker._worker_logs_enabled = False


def keep_on_loopback() -> None:
    """Let a cluster that starts now, its workers and their collectives included, listen on 127.0.0.1 alone.

    Ray 2.60 replaces 127.0.0.1 by the machine's outer address and listens on every interface, unless the switch that
    it has for desktop firewalls is off. The variable is read when Ray is imported, so both are set: the variable for
    the processes that Ray starts, the constant for this one.
    """
    from ray._private import ray_constants

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextlib.contextmanager
def leaves_signals_to_driver() -> Iterator[None]:
    """Keep `ray.init` in the block from taking part in the signals that the driver gets.

    Ray starts its processes in the driver's process group: SIGTERM to the group (a batch system, `timeout`) would end
    the raylet before the driver has written a checkpoint. Here they get a session of their own, in which the raylet
    starts the workers; the kernel still ends them with the driver (PR_SET_PDEATHSIG). `ray.init` also replaces the
    driver's handler of SIGTERM by one that exits with status 15.
    """
    from ray._private import services, utils

    popen, set_handler = services.ConsolePopen, utils.set_sigterm_handler
    services.ConsolePopen = functools.partial(popen, start_new_session=True)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = popen, set_handler


def init_on_loopback(**options: Any) -> None:
    """Start a local cluster whose node has the address 127.0.0.1; `ray.init` takes the address as `_node_ip_address`.

    `options` are other arguments of `ray.init`.
    """
    import ray

    ray.init(address="local", _node_ip_address="127.0.0.1", **options)


def session_folder() -> str:
    """Return the session folder of the connected node, where Ray keeps logs and spilled objects.

    `ray.runtime_context` knows the session's name only, not its folder, which `--temp-dir` may move.
    """
    import ray

    return str(ray._private.worker.global_worker.node.get_session_dir_path())


# Why a node is gone


def accidents() -> tuple[int, int]:
    """Return the values of "DeathReason" in `ray.nodes()` of a node that went unexpectedly, or was pre-empted."""
    from ray.core.generated.common_pb2 import NodeDeathInfo

    return NodeDeathInfo.UNEXPECTED_TERMINATION, NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED


# The autoscaler's node types


def autoscaler_groups() -> list[dict[str, Any]]:
    """Return the node groups that a platform has put into the connected cluster's GCS: name, resources, max_count.

    The list is empty for the open-source autoscaler. The public `ray.nodes()` has the nodes that are alive only.
    """
    import ray

    config = ray._private.state.state.get_cluster_config()
    return [
        {"name": group.name, "resources": dict(group.resources), "max_count": group.max_count}
        for group in (config.node_group_configs if config else ())
    ]


def kuberay_client(namespace: str) -> Any:
    """Return the client by which Ray's autoscaler reads its RayCluster: `get(path)` with the pod's own token.

    Its errors are OSErrors (those of requests are). It saves a dependency on a Kubernetes client.
    """
    from ray.autoscaler._private.kuberay import node_provider

    return node_provider.KubernetesHttpApiClient(namespace=namespace)


def kuberay_autoscaling_config(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the autoscaler's config (head_node_type, available_node_types, max_workers) of a RayCluster resource.

    The autoscaler derives it from pod templates and `rayStartParams`; a second implementation would differ.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config

    return dict(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))


# Ray Train and Ray Data


def controller_callback_classes() -> tuple[Any, Any]:
    """Return the classes whose hooks Ray Train calls in its controller: of the controller, of the worker group.

    The public UserCallback has no hook before a resize, nor one that sees a preemption notice.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    return ControllerCallback, WorkerGroupCallback


def torch_backend_class() -> Any:
    """Return the backend class that a TorchConfig starts in the workers, to be extended by a step before it.

    The public `TorchConfig.backend_cls` returns this class, but only to an instance.
    """
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def start_data_actors() -> None:
    """Start on this node the detached actors that all executions of Ray Data on a cluster share.

    The first execution starts them on its own node, a worker's. An autoscaler never takes away a node on which an
    actor lives, and these live as long as the cluster.
    """
    from ray.data._internal import stats, stats_summary_actor
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator
    from ray.data._internal.execution.node_trackers import actor_location
    from ray.data._internal.usage import actor as usage

    for start in (
        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator,
        actor_location.get_or_create_actor_location_tracker,
        stats.get_or_create_stats_actor,
        stats_summary_actor._get_or_create_stats_summary_actor,
        usage.get_or_create_usage_collection_actor,
    ):
        start()


def wrapped_error(error: BaseException) -> BaseException | None:
    """Return the exception of the train function inside what Ray Train reports as a worker's error, or None."""
    inner = getattr(error, "_base_exc", None)
    return inner if isinstance(inner, BaseException) else None


# Logs


def json_formatter_class() -> Any:
    """Return the formatter of Ray's own JSON logs, so that one query reads those of the driver too.

    Publicly it is chosen by `ray.LoggingConfig(encoding="JSON")`, which applies once Ray is connected, and to the root
    logger as a whole.
    """
    from ray._common.formatters import JSONFormatter

    return JSONFormatter
