"""The node types of a cluster: living nodes, and nodes that its autoscaler may add according to its own config."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.kuberay import node_provider

from sclip.config import ConfigError
from sclip.launch import node_types as module
from sclip.launch.node_types import NodeType, declared, node_types


def node(cpus: float, gpus: float = 0, group: str = "", alive: bool = True, **more: float) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus, "memory": 1e9} | more
    return {"Alive": alive, "Resources": resources, "Labels": {"ray.io/node-group": group} if group else {}}


HEAD = {"node:__internal_head__": 1.0}
ADDED = {
    "cpu": {"resources": {"CPU": 8}, "max_workers": 10},
    "gpu": {"resources": {"CPU": 32, "GPU": 4, "accelerator_type:A10G": 1}, "max_workers": 2},
}


HEAD_TYPE = NodeType("head", 0, 0, 1, 1)
H100 = {"accelerator_type:H100": 1.0}
CPUS = {"cpu": ADDED["cpu"]}


@pytest.mark.parametrize(
    ("nodes", "added", "expected"),
    [
        (
            [node(0, **HEAD), node(4), node(4), node(64, 8, **H100), node(9, alive=False)], {},
            [HEAD_TYPE, NodeType("4 CPU", 4, 0, 2, 2), NodeType("64 CPU 8 GPU H100", 64, 8, 1, 1, "H100")],
        ),
        (
            [node(0, **HEAD)], ADDED,
            [NodeType("cpu", 8, 0, 0, 10), NodeType("gpu", 32, 4, 0, 2, "A10G"), HEAD_TYPE],
        ),
        # A pod may round the CPUs of its group, so its label decides. `ray up` sets no label.
        ([node(7, group="cpu")], CPUS, [NodeType("cpu", 8, 0, 1, 10)]),
        ([node(8)] * 3, CPUS, [NodeType("cpu", 8, 0, 3, 10)]),
        # A head with the shape of a worker is not a worker.
        ([node(8, **HEAD)], CPUS, [NodeType("cpu", 8, 0, 0, 10), NodeType("head", 8, 0, 1, 1)]),
        ([], {"cpu": CPUS["cpu"] | {"max_workers": -1}}, [NodeType("cpu", 8, 0, 0, module.UNBOUNDED)]),
        ([], {"cpu": CPUS["cpu"] | {"max_workers": 0}}, []),
    ],
)  # fmt: skip
def test_nodes_belong_to_types_that_can_be_added_or_are_grouped_by_shape(
    nodes: list[dict[str, Any]], added: dict[str, Any], expected: list[NodeType]
) -> None:
    assert list(node_types(nodes, added)) == expected


@pytest.fixture
def autoscaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start a process that looks like the autoscaler of `ray start --autoscaling-config`; yield its GCS address."""
    monkeypatch.setattr(module, "_reported", dict)
    config = tmp_path / "bootstrap.yaml"
    types = {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 8}, "max_workers": 10},
        "gpu": {"resources": {"CPU": 32, "GPU": 4}, "min_workers": 0, "max_workers": 2},
        "never": {"resources": {"CPU": 1}, "max_workers": 0},
    }
    content = {"max_workers": 6, "head_node_type": "head", "available_node_types": types}
    config.write_text(json.dumps(content))
    command = [sys.executable, "-c", "input()", "--gcs-address=10.0.0.1:6379"]
    command.append(f"--autoscaling-config={config}")
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield "10.0.0.1:6379"
        process.kill()


def test_the_types_of_the_cluster_launcher_are_read_from_the_file_of_this_cluster(autoscaler: str) -> None:
    assert declared(autoscaler) == {
        "cpu": {"resources": {"CPU": 8}, "max_workers": 6},
        "gpu": {"resources": {"CPU": 32, "GPU": 4}, "max_workers": 2},
    }
    assert declared("10.0.0.1:6380") == {}


def group(name: str, most: int, **limits: str) -> dict[str, Any]:
    container = {"name": "ray", "resources": {"limits": limits}}
    return {
        "groupName": name, "minReplicas": 0, "maxReplicas": most, "rayStartParams": {},
        "template": {"spec": {"containers": [container]}},
    }  # fmt: skip


def test_the_groups_of_kuberay_are_read_from_the_raycluster_where_it_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "namespace").write_text("training\n")
    monkeypatch.setattr(module, "_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(module, "_reported", dict)
    monkeypatch.setenv("RAY_CLUSTER_NAME", "sclip")
    assert declared("none") == {}  # there is no Kubernetes token
    head = group("head", 0, cpu="2", memory="8Gi") | {"rayStartParams": {"num-cpus": "0"}}
    gpus = {"nvidia.com/gpu": "4"}
    groups = [group("cpu", 10, cpu="8", memory="16Gi"), group("gpu", 2, cpu="32", memory="64Gi", **gpus)]
    spec = {"enableInTreeAutoscaling": True, "headGroupSpec": head, "workerGroupSpecs": groups}
    requests = []

    def get(self: Any, path: str) -> dict[str, Any]:
        requests.append((self._namespace, path))
        return {"metadata": {"name": "sclip", "namespace": "training"}, "spec": spec}

    monkeypatch.setattr(node_provider.KubernetesHttpApiClient, "get", get)
    types = node_types([node(0, **HEAD)], declared("none"))
    assert [(t.name, t.cpus, t.gpus, t.most) for t in types[:2]] == [("cpu", 8, 0, 10), ("gpu", 32, 4, 2)]
    assert requests == [("training", "rayclusters/sclip")]
    spec["enableInTreeAutoscaling"] = False
    assert declared("none") == {}


def write(folder: Path, types: Any, **more: Any) -> Path:
    (folder / "nodes.yaml").write_text(json.dumps({"available_node_types": types} | more))
    return folder / "nodes.yaml"


def test_node_types_are_read_from_a_file_of_the_cluster_launcher_without_a_cluster(tmp_path: Path) -> None:
    types = {"head": {"resources": {"CPU": 4}, "max_workers": 0}, **ADDED}
    expected = [
        NodeType("cpu", 8, 0, 0, 10),
        NodeType("gpu", 32, 4, 0, 2, "A10G"),
        NodeType("head", 4, 0, 0, 1),
    ]
    assert list(module.of_file(write(tmp_path, types, head_node_type="head"))) == expected
    plain = tmp_path / "plain.yaml"
    plain.write_text(
        "max_workers: 8\navailable_node_types:\n  h: {resources: {CPU: 192, GPU: 8, accelerator_type:H100: 1}}\n"
    )
    assert list(module.of_file(plain)) == [NodeType("h", 192, 8, 0, 8, "H100")]


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (None, "available_node_types=None: write the node types by name"),
        ({"cpu": 3}, "available_node_types.cpu.resources=None: write what a node has, such as {CPU: 32}"),
        ({"cpu": {"resources": {}, "max_workers": 1}}, "available_node_types.cpu.resources={}: write what a node has"),
        ({"cpu": {"resources": {"CPU": "8"}, "max_workers": 1}}, "cpu.resources.CPU='8': write a number, 0 or more"),
        ({"cpu": {"resources": {"CPU": 8}}}, "available_node_types.cpu.max_workers=None: write a number, 0 or more"),
        ({"cpu": {"resources": {"CPU": 8}, "max_workers": -1}}, "cpu.max_workers=-1: write a number, 0 or more"),
    ],
)  # fmt: skip
def test_a_bad_file_of_node_types_is_refused_in_a_line_that_names_the_key(
    tmp_path: Path, types: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        module.of_file(write(tmp_path, types))
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'nodes.yaml'}: ")
    assert "\n" not in str(raised.value)


def test_memory_is_known_of_the_gpus_that_ray_names_and_of_no_others() -> None:
    assert module.memory_bytes("A100-40G") == 40 * 2**30
    assert module.memory_bytes("") is module.memory_bytes("K80") is None
