"""Render each target of cluster/ once, as kubectl would send its manifests, and list the pods."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from support.paths import ROOT
from support.processes import require

CLUSTER = ROOT / "cluster"
SIZES = ("cpu-small", "gpu-single-node", "gpu-multi-node")
OVERLAYS = (*SIZES, "gpu-multi-node-efa", "gpu-multi-node-rdma")
JOBS = (*SIZES, "gpu-multi-node-gang")
TARGETS = (*(f"kuberay/overlays/{name}" for name in OVERLAYS), *(f"kuberay/jobs/{name}" for name in JOBS))
KUBECTL = shutil.which("kubectl")

Manifest = dict[str, Any]


@functools.cache
def _kustomize_version() -> int:
    """Return the major version of kubectl's Kustomize; 0 without kubectl or if kubectl does not report it."""
    if KUBECTL is None:
        return 0
    command = [KUBECTL, "version", "--client", "--output=yaml"]
    version = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    major = re.search(r"kustomizeVersion: v?(\d+)\.", version)
    return int(major[1]) if major else 0


def require_kubectl() -> None:
    """Skip the test if kubectl lacks Kustomize 5 or later; fail it instead if SCLIP_KUBECTL=required."""
    if _kustomize_version() < 5:
        require("SCLIP_KUBECTL", "no kubectl 1.27 or later, whose Kustomize is of version 5")


@functools.cache
def _render(target: str) -> list[Manifest]:
    command = [str(KUBECTL), "kustomize", str(CLUSTER / target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # A warning about deprecated fields, for instance, is a failure too.
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [manifest for manifest in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if manifest]


def rendered(target: str) -> list[Manifest]:
    require_kubectl()
    return copy.deepcopy(_render(target))


def installed(target: str) -> list[Manifest]:
    """Return all manifests of the namespace: a Ray cluster or job, and MLflow."""
    return rendered(target) + rendered("mlflow")


def find(manifests: list[Manifest], kind: str, name: str = "sclip") -> Manifest:
    (manifest,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return manifest


def ray_cluster(manifests: list[Manifest]) -> Manifest:
    """Return the spec of the Ray cluster, whether it stands alone or inside a job."""
    (spec,) = [manifest["spec"] for manifest in manifests if manifest["apiVersion"] == "ray.io/v1"]
    return dict(spec.get("rayClusterSpec", spec))


@dataclass(frozen=True)
class Pod:
    """A pod template, its place in the manifests, and the names of its volume claims."""

    place: str
    template: Manifest
    claims: frozenset[str] = frozenset()

    @property
    def spec(self) -> Manifest:
        return dict(self.template["spec"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        opened = [port for container in self.containers for port in container.get("ports", ())]
        return {port["name"]: port["containerPort"] for port in opened}

    def watched(self, container: str) -> bool:
        """Return whether a container needs probes. KubeRay watches the autoscaler; the other exceptions end alone."""
        passing = [*self.spec.get("initContainers", ()), {"name": "autoscaler"}]
        return container not in [one["name"] for one in passing] and not self.place.endswith(".submitter")


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Yield every pod template; the head's includes the autoscaler container that KubeRay adds."""
    for manifest in manifests:
        place, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            claims = frozenset(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
            yield Pod(place, spec["template"], claims)
        if manifest["kind"] == "RayJob":
            yield Pod(f"{place}.submitter", spec["submitterPodTemplate"])
        if manifest["apiVersion"] == "ray.io/v1":
            cluster = ray_cluster([manifest])
            head = cluster["headGroupSpec"]["template"]
            if cluster["enableInTreeAutoscaling"]:
                head = copy.deepcopy(head)
                (ray,), options = head["spec"]["containers"], cluster["autoscalerOptions"]
                shared = {key: options[key] for key in options.keys() & ray.keys()}
                head["spec"]["containers"].append({"name": "autoscaler", "image": ray["image"]} | shared)
            yield Pod(f"{place}.head", head)
            for group in cluster["workerGroupSpecs"]:
                yield Pod(f"{place}.{group['groupName']}", group["template"])
