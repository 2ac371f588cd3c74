"""A cluster that begins with a head without work: it grows by what the run asks for, and shrinks to the head again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from support.ray_head import Head, ray_head
from support.runs import recorded, reports_seen, starter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

NODE_TYPES = {
    "parser": {"resources": {"CPU": 2, "object_store_memory": 200_000_000}, "max_workers": 3},
    "trainer": {"resources": {"CPU": 4, "object_store_memory": 200_000_000}, "max_workers": 2},
}
"""As in the manifests: the first takes an encoder and readers and no worker, the second a worker and nothing else."""


def autoscaling(address: str) -> dict[str, Any]:
    """Return the config of Ray's autoscaler, whose provider starts nodes as processes of this machine."""
    types = {name: kind | {"node_config": {}, "min_workers": 0} for name, kind in NODE_TYPES.items()}
    types[FAKE_HEAD_NODE_TYPE] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    commands = "initialization setup head_setup worker_setup head_start_ray worker_start_ray".split()
    nothing: dict[str, Any] = {f"{kind}_commands": [] for kind in commands}
    return nothing | {
        "file_mounts": {}, "cluster_synced_files": [], "cluster_name": "autoscaled", "max_workers": 5,
        "upscaling_speed": 10.0, "idle_timeout_minutes": 0.05,
        "provider": {
            # Named as a foreign one: of Ray's own, the defaults are looked for in a file that its wheel lacks.
            "type": "external", "module": f"{FakeMultiNodeProvider.__module__}.FakeMultiNodeProvider",
            "head_node_id": FAKE_HEAD_NODE_ID, "launch_multiple": True,
            "gcs_address": address,
        },
        "available_node_types": types,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
    }  # fmt: skip


@pytest.fixture
def autoscaled(tmp_path: Path) -> Iterator[Head]:
    config = tmp_path / "config.json"

    def written(address: str) -> list[str]:
        config.write_text(json.dumps(autoscaling(address)))
        return [f"--autoscaling-config={config}"]

    env = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }  # fmt: skip
    with ray_head("--num-cpus=0", more=written, env=env) as head:
        yield head
        ray.shutdown()


def nodes() -> list[float]:
    """Return the CPUs of the nodes that live, the fewest first."""
    return sorted(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])


def test_parsers_and_trainers_come_from_none_and_go_to_none_and_the_run_on_them_is_whole(
    autoscaled: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", autoscaled.address)
    ray.init(address=autoscaled.address, logging_level="ERROR", log_to_driver=False)
    assert nodes() == [0]
    during: list[list[float]] = []
    with reports_seen(lambda report: during.append(nodes())):
        summary = starter(tmp_path)(
            "run.name=autoscaled", "train.num_workers=2", "train.worker_cpus=4", "data.actor_cpus=0.7",
            "data.actors_max=2", "data.read_cpus=0.2", "train.epochs=1",
        )  # fmt: skip
    most = max(during, key=len)
    assert most.count(4) == 2
    assert most.count(2) >= 1  # gone again, perhaps, once everything is encoded
    for _ in range(1200):
        if nodes() == [0]:
            break
        time.sleep(0.1)
    assert nodes() == [0]
    assert summary.trained["samples"] == 96
    assert recorded(summary.tracking_uri, "autoscaled").info.status == "FINISHED"
