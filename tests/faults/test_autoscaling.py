"""A cluster that begins with an idle head grows by what a run requests, and shrinks to the head afterwards."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from sclip.run.summary import Summary
from support.ray_head import Head, ray_head
from support.runs import recorded, starter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

NODE_TYPES = {
    "parser": {"resources": {"CPU": 2, "object_store_memory": 200_000_000}, "max_workers": 3},
    "trainer": {"resources": {"CPU": 4, "object_store_memory": 200_000_000}, "max_workers": 2},
}
"""As in the manifests: a parser has room for an encoder and readers but no worker, a trainer for one worker only."""


def autoscaling(address: str) -> dict[str, Any]:
    """Return the config of Ray's autoscaler, whose provider starts nodes as processes on this machine."""
    types = {name: kind | {"node_config": {}, "min_workers": 0} for name, kind in NODE_TYPES.items()}
    types[FAKE_HEAD_NODE_TYPE] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    commands = "initialization setup head_setup worker_setup head_start_ray worker_start_ray".split()
    nothing: dict[str, Any] = {f"{kind}_commands": [] for kind in commands}
    return nothing | {
        "file_mounts": {}, "cluster_synced_files": [], "cluster_name": "autoscaled", "max_workers": 5,
        "upscaling_speed": 10.0, "idle_timeout_minutes": 0.05,
        "provider": {
            # Declared as external: for its own providers Ray reads defaults from a file that its wheel lacks.
            "type": "external", "module": f"{FakeMultiNodeProvider.__module__}.FakeMultiNodeProvider",
            "head_node_id": FAKE_HEAD_NODE_ID, "launch_multiple": True,
            "gcs_address": address,
        },
        "available_node_types": types,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
    }  # fmt: skip


Trained = tuple[Summary, list[float], list[list[float]], list[float]]


@pytest.fixture(scope="module")
def autoscaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    config = tmp_path_factory.mktemp("autoscaler") / "config.json"

    def written(address: str) -> list[str]:
        config.write_text(json.dumps(autoscaling(address)))
        return [f"--autoscaling-config={config}"]

    env = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }  # fmt: skip
    with ray_head("--num-cpus=0", more=written, env=env) as head:
        yield head


def nodes() -> list[float]:
    """Return the number of CPUs of each living node, in ascending order."""
    return sorted(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])


@contextmanager
def nodes_recorded() -> Iterator[list[list[float]]]:
    """Yield a list of the nodes at each moment of this block. Parsers' nodes may be gone before the first step."""
    moments: list[list[float]] = []
    ended = threading.Event()

    def record() -> None:
        while not ended.wait(0.2):
            moments.append(nodes())

    thread = threading.Thread(target=record)
    thread.start()
    try:
        yield moments
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def trained(autoscaled: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The run's summary, and its nodes before, at each moment during, and some time after the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", autoscaled.address)
        ray.init(address=autoscaled.address, logging_level="ERROR", log_to_driver=False)
        before = nodes()
        with nodes_recorded() as during:
            summary = starter(tmp_path_factory.mktemp("storage"))(
                "run.name=autoscaled", "train.num_workers=2", "train.worker_cpus=4", "data.actor_cpus=1.5",
                "data.actors_max=2", "data.read_cpus=0.2",
            )  # fmt: skip
        for _ in range(1200):
            if len(nodes()) == 1:
                break
            time.sleep(0.1)
        yield summary, before, during, nodes()
        ray.shutdown()


def test_parser_and_trainer_nodes_are_added_for_a_run_and_removed_after_it_and_the_run_is_complete(
    trained: Trained,
) -> None:
    summary, before, during, after = trained
    assert before == [0]
    assert max(moment.count(4) for moment in during) == 2
    assert max(moment.count(2) for moment in during) >= 1
    assert after == [0]
    assert summary.trained["samples"] == 2 * 96
    assert recorded(summary.tracking_uri, "autoscaled").info.status == "FINISHED"
