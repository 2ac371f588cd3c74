"""The manifests of cluster/ as Kubernetes gets them: rendered by the Kustomize inside kubectl."""

from __future__ import annotations

import copy
import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from support.paths import ROOT
from support.processes import require

CLUSTER = ROOT / "cluster"
OVERLAYS = ("cpu-small", "gpu-single-node", "gpu-multi-node")
JOBS = (*OVERLAYS, "gpu-multi-node-gang")
TARGETS = (*(f"kuberay/overlays/{name}" for name in OVERLAYS), *(f"kuberay/jobs/{name}" for name in JOBS))
KUBECTL = shutil.which("kubectl")

Manifest = dict[str, Any]


def require_kubectl() -> None:
    """Skip where no kubectl with a Kustomize of today is, but fail where SCLIP_KUBECTL=required."""
    told = ""
    if KUBECTL is None:
        told = "no kubectl to render manifests with"
    elif _kustomize_version(KUBECTL) < 5:
        told = f"{KUBECTL} has a Kustomize older than 5, which the manifests need: kubectl 1.27 or later"
    if told:
        require("SCLIP_KUBECTL", told)


@functools.cache
def _kustomize_version(kubectl: str) -> int:
    """Return the major version of kubectl's Kustomize; one that does not tell it is older than 5."""
    command = [kubectl, "version", "--client", "--output=yaml"]
    shown = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout) or {}
    found = re.match(r"v?(\d+)\.", shown.get("kustomizeVersion", ""))
    return int(found[1]) if found else 0


@functools.cache
def _render(target: str) -> tuple[Manifest, ...]:
    command = [str(KUBECTL), "kustomize", str(CLUSTER / target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"{target}: {done.stderr}"  # of deprecated fields, for instance
    return tuple(manifest for manifest in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if manifest)


def rendered(target: str) -> list[Manifest]:
    """Return what `kubectl apply -k cluster/TARGET` would send."""
    return copy.deepcopy(list(_render(target)))


def installed(target: str) -> list[Manifest]:
    """Return everything of the namespace: a Ray cluster or job, and the MLflow beside it."""
    return rendered(target) + rendered("mlflow")


def find(manifests: list[Manifest], kind: str, name: str = "sclip") -> Manifest:
    """Return the one manifest of a kind and name."""
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def ray_cluster(manifests: list[Manifest]) -> Manifest:
    """Return the spec of the Ray cluster, whether it stands alone or inside a job."""
    for manifest in manifests:
        if manifest["kind"] == "RayCluster":
            return dict(manifest["spec"])
    return dict(find(manifests, "RayJob")["spec"]["rayClusterSpec"])


@dataclass(frozen=True)
class Pod:
    """A pod template and where it stands."""

    place: str
    template: Manifest
    short_lived: bool = False
    """Whether it ends by itself: nobody probes it."""

    @property
    def spec(self) -> Manifest:
        """The pod's spec."""
        return dict(self.template["spec"])

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        return dict(self.template["metadata"]["labels"])


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Yield every pod template; the head's with the autoscaler that the operator puts beside it."""
    for manifest in manifests:
        place, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield Pod(place, spec["template"])
        if manifest["kind"] == "RayJob":
            yield Pod(f"{place}.submitter", spec["submitterPodTemplate"], short_lived=True)
        cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}.get(manifest["kind"])
        if cluster:
            head = copy.deepcopy(cluster["headGroupSpec"]["template"])
            if cluster["enableInTreeAutoscaling"]:
                given = {"name": "autoscaler", "image": head["spec"]["containers"][0]["image"]}
                options = {k: v for k, v in cluster["autoscalerOptions"].items() if k in CONTAINER_KEYS}
                head["spec"]["containers"].append(given | options)
            yield Pod(f"{place}.head", head)
            for group in cluster["workerGroupSpecs"]:
                yield Pod(f"{place}.{group['groupName']}", group["template"])


CONTAINER_KEYS = ("image", "resources", "securityContext", "env", "envFrom", "volumeMounts")
"""What autoscalerOptions hands on to the container."""


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a Markdown text's shell blocks, continued lines joined, comments left out."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def documented_secrets() -> dict[str, set[str]]:
    """Return the Secrets that the README makes, with their keys."""
    found = {}
    for words in commands((CLUSTER / "kuberay" / "README.md").read_text(encoding="utf-8")):
        if words[:3] == ["kubectl", "create", "secret"]:
            kind, name, options = words[3], words[4], " ".join(words[5:])
            keys = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", options))
            found[name] = {"tls.crt", "tls.key"} if kind == "tls" else keys
    return found


def images() -> set[str]:
    """Return the project's images, which one file names."""
    text = (CLUSTER / "kuberay" / "images" / "kustomization.yaml").read_text(encoding="utf-8")
    return {f"{image['newName']}:{image['newTag']}" for image in yaml.safe_load(text)["images"]}
