"""Every private name of Ray that the package uses exists in the installed Ray, and does what its wrapper says."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.train.torch import TorchConfig
from ray.util.state import list_actors

from sclip.launch import ray_internals
from support.paths import ROOT
from support.processes import environment
from support.ray_head import Head

PRIVATE = re.compile(
    r"ray\._|ray\.[a-z_.0-9]*(_internal|_private)|\._coord_actor|_base_exc|\b_node_ip_address"
)


def test_no_other_module_uses_a_private_name_of_ray() -> None:
    users = [path for path in (ROOT / "sclip").rglob("*.py") if PRIVATE.search(path.read_text())]
    assert users == [Path(ray_internals.__file__)]


def run(program: str, **variables: str) -> str:
    """Return what a program prints whose Ray is not yet changed by other tests."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(PYTHONPATH=str(ROOT), **variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


# Without a cluster


def test_a_call_of_ray_starts_no_cluster_once_auto_connect_is_off() -> None:
    program = """
import ray
from sclip.launch import ray_internals
ray_internals.disable_auto_connect()
try:
    ray.nodes()
except Exception as error:
    print(type(error).__name__, ray.is_initialized())
"""
    assert run(program).split()[1] == "False"


def test_the_default_address_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_internals.default_address() == "10.0.0.1:6379"


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_driver_with_a_token_sends_it(token: str, tmp_path: Path) -> None:
    program = """
import os
os.environ.pop("RAY_AUTH_MODE", None)
from sclip.launch import ray_internals
before = ray_internals.is_token_required()
ray_internals.send_token()
print(before, ray_internals.is_token_required())
"""
    assert run(program, RAY_AUTH_TOKEN=token, HOME=str(tmp_path)) == f"False {bool(token)}"


def test_worker_logs_are_not_printed_once_they_are_disabled() -> None:
    program = """
import io, logging
from ray._private import worker
from sclip.launch import ray_internals
line = {"pid": "raylet", "ip": "127.0.0.1", "lines": ["many workers"], "is_err": False, "job": None}
def printed():
    file = io.StringIO()
    worker.print_worker_logs(line, file)
    return "many workers" in file.getvalue()
before = printed()
ray_internals.disable_worker_logs()
print(before, printed())
"""
    assert run(program) == "True False"


def test_a_node_of_this_machine_has_the_loopback_address() -> None:
    program = """
import os
os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
from ray.util import get_node_ip_address
from sclip.launch import ray_internals
ray_internals.keep_on_loopback()
print(get_node_ip_address(), os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"])
"""
    assert run(program, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1") == "127.0.0.1 0"


def test_the_kuberay_client_reads_with_the_token_of_the_pod_and_fails_with_an_os_error() -> None:
    client = ray_internals.kuberay_client("training")
    with pytest.raises(OSError, match="serviceaccount"):  # there is no token here
        client.get("rayclusters/sclip")


def test_the_autoscaler_derives_its_node_types_from_a_raycluster() -> None:
    def group(name: str, most: int) -> dict[str, Any]:
        container = {"name": "ray", "resources": {"limits": {"cpu": "8", "memory": "16Gi"}}}
        limits = {"minReplicas": 0, "maxReplicas": most, "rayStartParams": {}}
        return {"groupName": name, "template": {"spec": {"containers": [container]}}} | limits

    spec = {
        "enableInTreeAutoscaling": True, "headGroupSpec": group("head", 0), "workerGroupSpecs": [group("cpu", 3)]
    }  # fmt: skip
    resource = {"metadata": {"name": "sclip", "namespace": "training"}, "spec": spec}
    config = ray_internals.kuberay_autoscaling_config(resource)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["available_node_types"]["cpu"]["max_workers"] == 3
    assert config["available_node_types"]["cpu"]["resources"]["CPU"] == 8
    assert "max_workers" in config


def test_the_callbacks_of_the_controller_have_the_hooks_that_are_used() -> None:
    controller, worker_group = ray_internals.controller_callback_classes()
    assert hasattr(controller, "before_controller_execute_resize_decision")
    hooks = ("training_start", "poll_status")
    assert all(hasattr(worker_group, f"after_worker_group_{hook}") for hook in hooks)


def test_the_backend_of_a_torch_config_is_the_class_that_is_extended() -> None:
    backend = ray_internals.torch_backend_class()
    assert TorchConfig(backend="gloo").backend_cls is backend
    assert hasattr(backend, "on_start")


def test_the_error_inside_ray_trains_wrapper_is_that_of_the_train_function() -> None:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    error = OSError("gone")
    assert ray_internals.wrapped_error(UserExceptionWithTraceback(error, "trace")) is error
    assert ray_internals.wrapped_error(error) is None


def test_the_formatter_writes_a_json_object_with_the_fields_of_ray() -> None:
    formatter = ray_internals.json_formatter_class()()
    record = logging.LogRecord("sclip", logging.INFO, "file.py", 1, "a line", None, None)
    fields = json.loads(formatter.format(record))
    assert (fields["message"], fields["levelname"]) == ("a line", "INFO")
    assert fields["asctime"]
    assert formatter.generate_record_format_attrs(record, False)["message"] == "a line"


# With a cluster


@pytest.fixture
def connected(head: Head) -> Any:
    ray.init(address=head.address, logging_level=logging.ERROR, log_to_driver=False)
    yield head
    ray.shutdown()


@pytest.mark.cluster
def test_what_a_connected_driver_asks_of_its_cluster(connected: Head) -> None:
    folder = Path(ray_internals.session_folder())
    assert (folder / "logs").is_dir()
    assert ray_internals.is_token_required()
    assert ray_internals.autoscaler_groups() == []  # no platform has put any into the GCS


@pytest.mark.cluster
def test_an_execution_on_another_node_starts_no_actor_there_that_outlives_it() -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": True},
        shutdown_at_exit=False,
    )
    other = cluster.add_node(num_cpus=2)
    try:
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        ray_internals.start_data_actors()
        rows = ray.data.range(8, override_num_blocks=2).map_batches(lambda batch: batch)
        assert len(ray.get(ray.remote(num_cpus=1)(lambda: rows.take_all()).remote())) == 8
        alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
        assert {actor.node_id for actor in alive} == {ray.get_runtime_context().get_node_id()}
        assert other.node_id != ray.get_runtime_context().get_node_id()
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.cluster
def test_the_groups_that_a_platform_puts_into_the_gcs_are_read(
    connected: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.core.generated.autoscaler_pb2 import ClusterConfig

    config = ClusterConfig()
    group = config.node_group_configs.add(name="cpu", max_count=3)
    group.resources["CPU"] = 8
    state = ray._private.state.state
    assert state.get_cluster_config() is None or isinstance(state.get_cluster_config(), ClusterConfig)
    monkeypatch.setattr(type(state), "get_cluster_config", lambda _: config)
    assert ray_internals.autoscaler_groups() == [{"name": "cpu", "resources": {"CPU": 8}, "max_count": 3}]


@pytest.mark.cluster
def test_a_local_cluster_lives_on_loopback() -> None:
    program = """
import logging
import ray
from sclip.launch import ray_internals
ray_internals.keep_on_loopback()
ray_internals.init_on_loopback(include_dashboard=False, num_cpus=1, logging_level=logging.ERROR, log_to_driver=False)
print(ray.nodes()[0]["NodeManagerAddress"])
"""
    assert run(program) == "127.0.0.1"


@pytest.mark.cluster
def test_its_processes_take_no_part_in_signals_to_the_driver_and_end_with_it() -> None:
    program = """
import logging, os, signal
import psutil, ray
from sclip.launch import ray_internals
answer = lambda number, frame: None
signal.signal(signal.SIGTERM, answer)
ray_internals.keep_on_loopback()
with ray_internals.leaves_signals_to_driver():
    ray_internals.init_on_loopback(
        include_dashboard=False, num_cpus=1, logging_level=logging.ERROR, log_to_driver=False
    )
assert signal.getsignal(signal.SIGTERM) is answer
pid = ray.remote(lambda: os.getpid())
worker = ray.get(pid.remote())
os.killpg(0, signal.SIGTERM)  # as a batch system does
ray.get(pid.remote())
pids = [child.pid for child in psutil.Process().children(recursive=True)]
assert worker in pids and all(os.getsid(pid) != os.getsid(0) for pid in pids)
# For a minute Ray's agents tell a GCS that is gone of the raylet's end.
print(*(pid for pid in pids if "Agent" not in psutil.Process(pid).name()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(PYTHONPATH=str(ROOT)), text=True,
        capture_output=True, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert psutil.wait_procs(left, timeout=60)[1] == []
