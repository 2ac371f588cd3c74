"""Find the node types of a Ray cluster: the types of living nodes, and the types that the autoscaler can add.

Ray tells a driver which nodes are alive, but not how far the cluster can grow: the open-source autoscaler does not
publish its node types (the GCS has them only if a platform puts them there). So this module reads what the
autoscaler reads: the file of `ray up` on the head, or KubeRay's RayCluster. A job runs on the head and can read both.
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
"""Number of nodes that stands for "no limit"."""

_ACCELERATOR = "accelerator_type:"
_GROUP = "ray.io/node-group"  # node label with the autoscaler's node type
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind; `cpus` and `gpus` are those of one node."""

    name: str
    cpus: float
    gpus: float
    alive: int
    most: int
    """Maximum number of nodes; equal to `alive` if none can be added."""
    accelerator: str = ""
    """Ray's name for the GPUs, such as H100 or A10G."""


_MEMORY_GIB: dict[str, float] = {
    "T4": 15, "V100": 32, "L4": 22.5, "A10G": 22.5, "L40S": 45, "A100-40G": 40, "A100": 80,
    "A100-80G": 80, "H100": 80, "H20": 96, "RTX-PRO-6000": 96, "H200": 140, "B200": 179, "GB200": 185, "B300": 268,
}  # fmt: skip
"""GiB of memory by Ray's name of the GPU, rounded from nvidia-smi. If several sizes share a name, the largest."""


def memory_bytes(accelerator: str) -> float | None:
    """Return the bytes of memory of a GPU model, by Ray's name of the model; None if unknown."""
    memory_gib = _MEMORY_GIB.get(accelerator)
    return memory_gib * 2**30 if memory_gib else None


def node_types(
    nodes: Iterable[Mapping[str, Any]], added: Mapping[str, Mapping[str, Any]]
) -> tuple[NodeType, ...]:
    """Return the node types of a cluster: first those in `added`, then the types of all other living nodes.

    Args:
        nodes: `ray.nodes()`.
        added: the autoscaler's types by name, as `declared` returns them.
    """
    types = {
        name: _type(name, kind["resources"], 0, int(kind["max_workers"])) for name, kind in added.items()
    }
    for node in nodes:
        if not node["Alive"]:
            continue
        seen = _type("", node["Resources"], 1, 1)
        name = node.get("Labels", {}).get(_GROUP, "")
        if name not in types:  # nodes of `ray up` have no label: compare their resources
            same = [t.name for t in types.values() if t.most and (t.cpus, t.gpus) == (seen.cpus, seen.gpus)]
            is_head = "node:__internal_head__" in node["Resources"]
            name = same[0] if same and not is_head else name or ("head" if is_head else _shape(seen))
        known = types.get(name, replace(seen, name=name, alive=0, most=0))
        alive = known.alive + 1
        types[name] = replace(
            known, alive=alive, most=max(known.most, alive), accelerator=known.accelerator or seen.accelerator,
        )  # fmt: skip
    return tuple(kind for kind in types.values() if kind.most)


def of_file(path: Path) -> tuple[NodeType, ...]:
    """Return the node types in a file of Ray's cluster launcher, each with alive=0. Raises ConfigError for a bad file.

    Only `available_node_types`, `head_node_type` and `max_workers` are read. Each type must have a CPU count in
    `resources`: this function, unlike the launcher, cannot ask a cloud for the sizes of its machines.
    """
    config = read_yaml(path)
    types = config.get("available_node_types")
    if not isinstance(types, dict) or not types:
        raise ConfigError(f"{path}: available_node_types={types!r}: write the node types by name")
    head = config.get("head_node_type", "")
    most = config.get("max_workers", UNBOUNDED)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise ConfigError(f"{path}: max_workers={most!r}: write a whole number, 0 or more")
    for name, kind in types.items():
        resources = kind.get("resources") if isinstance(kind, dict) else None
        if not isinstance(resources, dict) or "CPU" not in resources:
            raise ConfigError(
                f"{path}: available_node_types.{name}.resources={resources!r}: write what a node has, such as "
                "{CPU: 32} or {CPU: 192, GPU: 8, accelerator_type:H100: 1}"
            )
        counts = {f"resources.{key}": value for key, value in resources.items()}
        if name != head:
            counts["max_workers"] = kind.get("max_workers", config.get("max_workers"))
        for key, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ConfigError(
                    f"{path}: available_node_types.{name}.{key}={value!r}: write a number, 0 or more"
                )
    added = _addable(config)
    if head in types:
        added[head] = {"resources": types[head]["resources"], "max_workers": 1}
    if not (result := node_types([], added)):
        raise ConfigError(
            f"{path}: max_workers=0: no node can be added; write the number of nodes of each type"
        )
    return result


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
    """Return the node types that the connected cluster's autoscaler can add: resources and max_workers by type name.

    The result is empty if there is no autoscaler, or if this process cannot read the autoscaler's config.
    """
    return _reported() or _from_file(gcs_address) or _from_kuberay()


def _reported() -> dict[str, dict[str, Any]]:
    return {
        group["name"]: {"resources": group["resources"], "max_workers": group["max_count"]}
        for group in ray_internals.autoscaler_groups()
        if group["max_count"]
    }


def _from_file(gcs_address: str) -> dict[str, dict[str, Any]]:
    """Return the types in the config file of this cluster's autoscaler, if the autoscaler runs on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        options = dict(
            argument.split("=", 1) for argument in arguments if argument.startswith("--") and "=" in argument
        )
        path = options.get("--autoscaling-config")
        if path and options.get("--gcs-address") == gcs_address:
            try:
                return _addable(read_yaml(Path(path).expanduser()))
            except ConfigError:  # for example, another user owns the file
                return {}
    return {}


def _addable(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the node types that an autoscaler with this config can add: all except the head's."""
    head, most = config.get("head_node_type"), int(config.get("max_workers", UNBOUNDED))
    return {
        name: {
            "resources": kind.get("resources", {}),
            "max_workers": min(most, kind.get("max_workers", most)),
        }
        for name, kind in config.get("available_node_types", {}).items()
        if name != head and kind.get("max_workers", most)
    }


def _from_kuberay() -> dict[str, dict[str, Any]]:
    """Return the worker groups of this pod's RayCluster, which KubeRay allows the head to read."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or not _NAMESPACE.is_file():
        return {}
    client = ray_internals.kuberay_client(_NAMESPACE.read_text().strip())
    try:
        cluster = client.get(f"rayclusters/{name}")
    except OSError:  # also `requests`' errors, such as a missing permission: only living nodes are known
        return {}
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return {}
    return _addable(ray_internals.kuberay_autoscaling_config(cluster))
