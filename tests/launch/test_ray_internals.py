"""Every private name of Ray that the package uses exists in the installed Ray, and does what its wrapper says."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

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
    """Run a program whose Ray is not yet changed by other tests; return the last line that it prints."""
    env = environment(PYTHONPATH=str(ROOT), **variables)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


# Without a cluster


def test_after_disabling_a_ray_call_starts_no_cluster_and_worker_logs_are_not_printed() -> None:
    program = """
import io
import ray
from ray._private import worker
from sclip.launch import ray_internals
line = {"pid": "raylet", "ip": "127.0.0.1", "lines": ["many workers"], "is_err": False, "job": None}
def printed():
    file = io.StringIO()
    worker.print_worker_logs(line, file)
    return "many workers" in file.getvalue()
before = printed()
ray_internals.disable_worker_logs()
ray_internals.disable_auto_connect()
try:
    ray.nodes()
except Exception:
    print(before, printed(), ray.is_initialized())
"""
    assert run(program) == "True False False"


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


def test_the_callbacks_of_the_controller_have_the_hooks_that_are_used() -> None:
    controller, worker_group = ray_internals.controller_callback_classes()
    assert hasattr(controller, "before_controller_execute_resize_decision")
    hooks = ("training_start", "poll_status")
    assert all(hasattr(worker_group, f"after_worker_group_{hook}") for hook in hooks)


# With a cluster


@pytest.fixture
def connected(head: Head) -> Iterator[None]:
    ray.init(address=head.address, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.cluster
@pytest.mark.usefixtures("connected")
def test_a_connected_driver_reads_session_folder_token_and_groups_of_its_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.core.generated.autoscaler_pb2 import ClusterConfig

    assert (Path(ray_internals.session_folder()) / "logs").is_dir()
    assert ray_internals.is_token_required()
    assert ray_internals.autoscaler_groups() == []  # no platform has stored groups in the GCS
    config = ClusterConfig()
    group = config.node_group_configs.add(name="cpu", max_count=3)
    group.resources["CPU"] = 8
    state = ray._private.state.state
    assert state.get_cluster_config() is None or isinstance(state.get_cluster_config(), ClusterConfig)
    monkeypatch.setattr(type(state), "get_cluster_config", lambda _: config)
    assert ray_internals.autoscaler_groups() == [{"name": "cpu", "resources": {"CPU": 8}, "max_count": 3}]


@pytest.mark.cluster
def test_processes_of_ray_get_no_signals_of_the_driver_and_end_with_it() -> None:
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
    processes = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert psutil.wait_procs(processes, timeout=60)[1] == []
