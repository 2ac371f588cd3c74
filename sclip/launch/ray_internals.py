"""Collect all uses of Ray's private names, one function for each purpose.

Ray may change a private name in any release. `tests/launch/test_ray_internals.py` tests each function with the
installed Ray. No other module of `sclip` may import a private name. Each function imports Ray only when called:
`connect` must first set environment variables that Ray reads on import, and some modules take seconds to import.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

# Connecting


def disable_auto_connect() -> None:
    """Prevent Ray's API calls from starting a cluster when this process is not connected to one.

    Otherwise a thread that still runs after the program has disconnected would start another cluster. Ray's public
    switch, RAY_ENABLE_AUTO_CONNECT, has no effect once Ray is imported.
    """
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False


def default_address() -> str | None:
    """Return the address of the cluster that `ray start` or a job announced to this machine, or None.

    `ray.init("auto")` does the same look-up, but also joins another program's private cluster, and tries for minutes
    to connect to a killed head.
    """
    from ray._private import services

    address = services.get_ray_address_from_environment(None, None)
    return None if address is None else str(address)


def send_token() -> None:
    """Make this driver send its authentication token, if it has one.

    A head that finds a token requires it from drivers, but a driver sends its token only with RAY_AUTH_MODE=token,
    which Ray reads on import. Without the token, a driver tries for minutes to connect.
    """
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def is_token_required() -> bool:
    """Return whether this process's Ray authenticates with a token; Ray has no public function for this."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def disable_worker_logs() -> None:
    """Silence the logs that a cluster prints in this driver, such as a raylet's warning about many workers.

    Ray prints that warning even with `log_to_driver=False`, which only covers the output of workers.
    """
    from ray._private import worker

    worker._worker_logs_enabled = False


def keep_on_loopback() -> None:
    """Make a cluster that starts now, its workers and their collectives listen on 127.0.0.1 only.

    Ray 2.60 replaces 127.0.0.1 by the machine's external address and listens on every interface, unless
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is 0.
    """
    from ray._private import ray_constants

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this process: Ray has already read the variable, on import


@contextlib.contextmanager
def leaves_signals_to_driver() -> Iterator[None]:
    """Prevent `ray.init` in the block from interfering with the driver's signals.

    Ray starts its processes in the driver's process group. So SIGTERM to the group (from a batch system or `timeout`)
    would end the raylet before the driver has written a checkpoint. In this block Ray's processes get a session of
    their own. `ray.init` would also replace the driver's SIGTERM handler by one that exits with status 15.
    """
    from ray._private import services, utils

    # The kernel still ends Ray's processes with the driver (PR_SET_PDEATHSIG).
    popen, set_handler = services.ConsolePopen, utils.set_sigterm_handler
    services.ConsolePopen = functools.partial(popen, start_new_session=True)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = popen, set_handler


def init_on_loopback(**options: Any) -> None:
    """Start a local cluster with a node at 127.0.0.1; `options` are further arguments of `ray.init`."""
    import ray

    ray.init(address="local", _node_ip_address="127.0.0.1", **options)


def session_folder() -> str:
    """Return the session folder of the connected node, where Ray keeps logs and spilled objects.

    The public `ray.runtime_context` knows the session's name, but not the folder, which also depends on `--temp-dir`.
    """
    import ray

    return str(ray._private.worker.global_worker.node.get_session_dir_path())


# Why a node is gone


def accidents() -> tuple[int, int]:
    """Return the values of "DeathReason" in `ray.nodes()` for nodes that died unexpectedly, and for preempted nodes."""
    from ray.core.generated.common_pb2 import NodeDeathInfo

    return NodeDeathInfo.UNEXPECTED_TERMINATION, NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED


# The autoscaler's node types


def autoscaler_groups() -> list[dict[str, Any]]:
    """Return the node groups that a platform has put into the connected cluster's GCS: name, resources, max_count.

    The list is empty for the open-source autoscaler. The public `ray.nodes()` does not know types without a node.
    """
    import ray

    config = ray._private.state.state.get_cluster_config()
    return [
        {"name": group.name, "resources": dict(group.resources), "max_count": group.max_count}
        for group in (config.node_group_configs if config else ())
    ]


def kuberay_client(namespace: str) -> Any:
    """Return the client of Ray's autoscaler for Kubernetes: its `get(path)` sends the pod's own token.

    The client raises errors of the package `requests`, which are OSErrors. With it, sclip needs no Kubernetes library.
    """
    from ray.autoscaler._private.kuberay import node_provider

    return node_provider.KubernetesHttpApiClient(namespace=namespace)


def kuberay_autoscaling_config(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the autoscaler's config (head_node_type, available_node_types, max_workers) of a RayCluster resource.

    The autoscaler derives this config from pod templates and `rayStartParams`. A copy of its code here would go stale.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config

    return dict(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))


# Ray Train and Ray Data


def controller_callback_classes() -> tuple[Any, Any]:
    """Return the base classes of callbacks in Ray Train's controller: one for the controller, one for worker groups.

    The public UserCallback has no hook before a resize, and no hook for a preemption notice.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    return ControllerCallback, WorkerGroupCallback


def torch_backend_class() -> Any:
    """Return Ray's torch backend class, which starts the process group in the workers.

    `sclip.launch.rendezvous` derives a class from it that first runs its own code. The public `TorchConfig.backend_cls`
    is a property that returns the class too, but it needs an instance.
    """
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def start_data_actors() -> None:
    """Start, on this node, the detached actors that all executions of Ray Data on a cluster share.

    By default the first execution starts these actors on a worker's node. The actors live as long as the cluster, and
    an autoscaler never removes a node with a living actor: the worker's node would never be removed.
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
    """Return the train function's exception inside a worker error that Ray Train reports, or None."""
    inner = getattr(error, "_base_exc", None)
    return inner if isinstance(inner, BaseException) else None


# Logs


def json_formatter_class() -> Any:
    """Return the class that formats Ray's own JSON logs. The driver's logs use it too, so that one query reads both.

    The public way to choose this formatter, `ray.LoggingConfig(encoding="JSON")`, takes effect only once Ray is
    connected, and for the whole root logger.
    """
    from ray._common.formatters import JSONFormatter

    return JSONFormatter
