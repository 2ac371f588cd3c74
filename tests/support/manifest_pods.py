"""What every pod must be: unprivileged, bounded, probed, and a Ray pod consistent with itself."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from support.kustomized import Manifest, Pod, pods, ray_cluster

RESOURCES = {"cpu", "memory", "ephemeral-storage"}
GPU = "nvidia.com/gpu"
RAYS_STOP_S = 3
"""What Ray gives a job that is stopped, unless told otherwise."""
UNITS: dict[str, Decimal | int] = {"": 1, "m": Decimal("0.001"), "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}


def quantity(text: str) -> Decimal:
    """Return the number that a quantity of Kubernetes means: 500m, 2Gi."""
    found = re.fullmatch(r"(\d+)([a-zA-Z]*)", str(text))
    assert found, f"{text!r} is not a quantity"
    return Decimal(found[1]) * UNITS[found[2]]


def safety_problems(manifests: list[Manifest]) -> list[str]:
    """Return what would give a container more than it needs of its node."""
    problems = []
    for pod in pods(manifests):
        spec, context = pod.spec, pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            problems.append(f"{pod.place}: may run as root")
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            problems.append(f"{pod.place}: no seccomp profile")
        problems += [f"{pod.place}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
        problems += [
            f"{pod.place}: mounts the node's disk" for one in spec.get("volumes", []) if "hostPath" in one
        ]
        if spec.get("automountServiceAccountToken") is not False and not pod.place.endswith(".head"):
            problems.append(f"{pod.place}: holds a token for Kubernetes and asks it nothing")
        for container in spec.get("initContainers", []) + spec["containers"]:
            place, own = f"{pod.place}.{container['name']}", container.get("securityContext", {})
            wanted: dict[str, Any] = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            wanted["capabilities"] = {"drop": ["ALL"]}
            problems += [
                f"{place}: {key} is {own.get(key)}" for key, value in wanted.items() if own.get(key) != value
            ]
            problems += [f"{place}: {key} of its own" for key in own.keys() - wanted.keys()]
            problems += _unbounded(place, container.get("resources", {}))
    return problems


def _unbounded(place: str, resources: dict[str, dict[str, str]]) -> list[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    problems = [f"{place}: no {name} in requests" for name in sorted(RESOURCES - requests.keys())]
    problems += [f"{place}: no {name} in limits" for name in sorted(RESOURCES - limits.keys())]
    unknown = (requests.keys() | limits.keys()) - RESOURCES - {GPU}
    problems += [f"{place}: {name} is no resource" for name in sorted(unknown)]
    for name in requests.keys() & limits.keys():
        if quantity(requests[name]) > quantity(limits[name]):
            problems.append(f"{place}: asks for more {name} than its limit")
    return problems


def probe_problems(manifests: list[Manifest]) -> list[str]:
    """Return containers that can hang without being seen, and probes of ports that nobody opens."""
    problems = []
    for pod in pods(manifests):
        for container in pod.spec["containers"]:
            if (
                pod.short_lived or container["name"] == "autoscaler"
            ):  # the operator's, which restarts with the head
                continue
            for kind in ("readinessProbe", "livenessProbe"):
                probe = container.get(kind)
                if probe is None:
                    problems.append(f"{pod.place}.{container['name']}: no {kind}")
                elif "httpGet" in probe and probe["httpGet"]["port"] not in _port_names(container):
                    problems.append(
                        f"{pod.place}.{container['name']}: {kind} asks a port that it does not open"
                    )
    return problems


def _port_names(container: dict[str, Any]) -> set[str]:
    return {port["name"] for port in container.get("ports", [])}


def mount_problems(manifests: list[Manifest]) -> list[str]:
    """Return mounts of volumes that the pod does not have, and volumes that nothing mounts."""
    problems = []
    for pod in pods(manifests):
        containers = pod.spec.get("initContainers", []) + pod.spec["containers"]
        mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
        has = {volume["name"] for volume in pod.spec.get("volumes", [])}
        claims = {
            c["metadata"]["name"]
            for m in manifests
            for c in m.get("spec", {}).get("volumeClaimTemplates", [])
        }
        problems += [f"{pod.place}: no volume {name}" for name in sorted(mounted - has - claims)]
        problems += [f"{pod.place}: nothing mounts {name}" for name in sorted(has - mounted)]
    return problems


def ray_problems(manifests: list[Manifest]) -> list[str]:
    """Return numbers of a Ray cluster that contradict each other."""
    cluster, problems = ray_cluster(manifests), []
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        problems.append("head: takes work")
    problems += [
        f"{group['groupName']}: not minReplicas <= replicas <= maxReplicas"
        for group in cluster["workerGroupSpecs"]
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] >= 1
    ]
    head = cluster["headGroupSpec"]["template"]["spec"]
    environment = {env["name"]: env.get("value") for env in head["containers"][0]["env"]}
    stop_s = int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", RAYS_STOP_S))
    if not RAYS_STOP_S < stop_s < head["terminationGracePeriodSeconds"]:
        problems.append("head: a stopped job has no time for its checkpoint before the pod ends")
    for group in [{"groupName": "head"} | cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        problems += _group_problems(group["groupName"], group)
    return problems


def _group_problems(name: str, group: Manifest) -> list[str]:
    pod, problems = Pod(name, group["template"]), []
    container = pod.spec["containers"][0]
    limits = container["resources"]["limits"]
    memory, disk = (quantity(limits.get(one, "0")) for one in ("memory", "ephemeral-storage"))
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    shared = quantity(volumes["shared-mem"]["emptyDir"]["sizeLimit"])
    if volumes["shared-mem"]["emptyDir"].get("medium") != "Memory":
        problems.append(f"{name}: /dev/shm is on a disk")
    if not Decimal(group["rayStartParams"]["object-store-memory"]) <= shared < memory / 2:
        problems.append(f"{name}: not object store <= /dev/shm < half of the memory, which both count in")
    if quantity(volumes["tmp"]["emptyDir"]["sizeLimit"]) > disk:
        problems.append(f"{name}: /tmp may hold more than the pod's limit, which evicts it")
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    if hook and int(hook[-1]) >= pod.spec["terminationGracePeriodSeconds"]:
        problems.append(f"{name}: is killed before its notice has run out")
    tolerated = {toleration["key"] for toleration in pod.spec.get("tolerations", [])}
    if GPU in limits and GPU not in tolerated:
        problems.append(f"{name}: does not bear the taint of GPU nodes")
    return problems
