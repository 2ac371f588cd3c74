"""Find the node types of a Ray cluster: those that are there, and those that its autoscaler may add.

Ray tells a driver which nodes are alive, but not what the cluster may grow to: the open-source autoscaler keeps the
node types to itself (the GCS has them only where a platform puts them there). So they are read where the autoscaler
reads them: the file of `ray up` on the head, or KubeRay's RayCluster. A job that is submitted runs on the head, where
both are at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from sclip.config import ConfigError
from sclip.config.loader import read_yaml
from sclip.launch import ray_internals

UNBOUNDED = 1000
"""Nodes of a type whose number nothing limits."""

_ACCELERATOR = "accelerator_type:"
_GROUP = "ray.io/node-group"
"""Ray's label of a node for the autoscaler's type."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind."""

    name: str
    cpus: float
    """CPUs of one node; `gpus` likewise."""
    gpus: float
    alive: int
    most: int
    """Nodes that there can be; `alive` where nothing is added."""
    accelerator: str = ""
    """Ray's name of its GPUs: H100, A10G."""


def node_types(
    nodes: Iterable[Mapping[str, Any]], added: Mapping[str, Mapping[str, Any]]
) -> tuple[NodeType, ...]:
    """Return the types of a cluster: those that can be added first, then those that are only there.

    Args:
        nodes: `ray.nodes()`.
        added: by name the types of the autoscaler, as `declared` returns them.
    """
    types = {
        name: _type(name, kind["resources"], 0, int(kind["max_workers"])) for name, kind in added.items()
    }
    for node in nodes:
        if not node["Alive"]:
            continue
        seen = _type("", node["Resources"], 1, 1)
        name = node.get("Labels", {}).get(_GROUP, "")
        if name not in types:  # `ray up` does not label its nodes
            same = [t.name for t in types.values() if t.most and (t.cpus, t.gpus) == (seen.cpus, seen.gpus)]
            head = "node:__internal_head__" in node["Resources"]
            name = same[0] if same and not head else name or ("head" if head else _shape(seen))
        known = types.get(name, replace(seen, name=name, alive=0, most=0))
        alive = known.alive + 1
        types[name] = replace(
            known, alive=alive, most=max(known.most, alive), accelerator=known.accelerator or seen.accelerator,
        )  # fmt: skip
    return tuple(kind for kind in types.values() if kind.most)


def _type(name: str, resources: Mapping[str, float], alive: int, most: int) -> NodeType:
    accelerator = next(
        (key.removeprefix(_ACCELERATOR) for key in resources if key.startswith(_ACCELERATOR)), ""
    )
    cpus, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
    return NodeType(name, cpus, gpus, alive, UNBOUNDED if most < 0 else most, accelerator)


def _shape(kind: NodeType) -> str:
    gpus = f" {kind.gpus:g} GPU {kind.accelerator}".rstrip() if kind.gpus else ""
    return f"{kind.cpus:g} CPU{gpus}"


def declared(gcs_address: str) -> dict[str, dict[str, Any]]:
    """Return by name the node types that the autoscaler of the connected cluster can add: resources, max_workers.

    Empty where there is no autoscaler, or where this process cannot see what it reads.
    """
    return _reported() or _of_file(gcs_address) or _of_kuberay()


def _reported() -> dict[str, dict[str, Any]]:
    return {
        group["name"]: {"resources": group["resources"], "max_workers": group["max_count"]}
        for group in ray_internals.autoscaler_groups()
        if group["max_count"]
    }


def _of_file(gcs_address: str) -> dict[str, dict[str, Any]]:
    """Return the types of the file that the cluster's own autoscaler, a process of this machine, was started with."""
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        options = dict(
            argument.split("=", 1) for argument in arguments if argument.startswith("--") and "=" in argument
        )
        path = options.get("--autoscaling-config")
        if path and options.get("--gcs-address") == gcs_address:
            try:
                return _addable(read_yaml(Path(path).expanduser()))
            except ConfigError:  # another user's
                return {}
    return {}


def _addable(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the types of an autoscaler's config but the head's; `max_workers` of all together bounds each."""
    head, most = config.get("head_node_type"), int(config.get("max_workers", UNBOUNDED))
    return {
        name: {
            "resources": kind.get("resources", {}),
            "max_workers": min(most, kind.get("max_workers", most)),
        }
        for name, kind in config.get("available_node_types", {}).items()
        if name != head and kind.get("max_workers", most)
    }


def _of_kuberay() -> dict[str, dict[str, Any]]:
    """Return the worker groups of the RayCluster that this pod belongs to, which KubeRay lets its head read."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or not _NAMESPACE.is_file():
        return {}
    client = ray_internals.kuberay_client(_NAMESPACE.read_text().strip())
    try:
        cluster = client.get(f"rayclusters/{name}")
    except OSError:  # requests' errors too: no token in the pod, or no right; what is alive is then all
        return {}
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return {}
    return _addable(ray_internals.kuberay_autoscaling_config(cluster))
