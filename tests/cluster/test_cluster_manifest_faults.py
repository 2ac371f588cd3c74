"""Whatever is planted into the manifests, a misspelt field or a hole in a policy, is found and named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from support.kustomized import Manifest, documented_secrets, images, installed, require_kubectl
from support.manifest_network import address_problems, policy_problems, selector_problems
from support.manifest_pods import mount_problems, probe_problems, ray_problems, safety_problems
from support.manifest_references import image_problems, reference_problems, secret_problems
from support.manifest_schemas import CRDS, core_problems, kuberay_problems

TARGET = "kuberay/overlays/gpu-multi-node"
RAY = "RayCluster/sclip"
REDIS = "StatefulSet/sclip-redis"
MLFLOW = "Deployment/mlflow"
HEAD, PARSER, TRAINER = "spec.headGroupSpec", "spec.workerGroupSpecs.0", "spec.workerGroupSpecs.1"
POD, BOX = "spec.template.spec", "spec.template.spec.containers.0"  # of a Deployment or StatefulSet
WORKER, WORK = f"{PARSER}.template.spec", f"{PARSER}.template.spec.containers.0"
GONE = object()
"""Planted where something is taken away."""


@dataclass(frozen=True)
class Fault:
    """What is planted, where, and a part of what must be told of it."""

    name: str
    manifest: str
    path: str
    """Keys and indices below the manifest; "+" appends to a list."""
    value: Any
    told: str

    def plant(self, manifests: list[Manifest]) -> None:
        """Change the one manifest."""
        kind, _, name = self.manifest.partition("/")
        place: Any
        (place,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
        *way, last = self.path.split(".")
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if last == "+":
            place.append(self.value)
        elif self.value is GONE:
            del place[int(last) if isinstance(place, list) else last]
        else:
            place[int(last) if isinstance(place, list) else last] = self.value


MISWRITTEN = [
    Fault(
        "a misspelt field of the head group", RAY, f"{HEAD}.rayStartParam", {"num-cpus": "0"}, "rayStartParam"
    ),
    Fault("a misspelt field of a worker group", RAY, f"{PARSER}.minReplica", 0, "minReplica"),
    Fault("a misspelt field of the autoscaler", RAY, "spec.autoscalerOptions.idleTimeout", 60, "idleTimeout"),
    Fault("a text where a number belongs", RAY, f"{PARSER}.maxReplicas", "16", "is not of type"),
    Fault("a number where a text belongs", RAY, f"{HEAD}.rayStartParams.num-cpus", 0, "is not of type"),
    Fault("a mode that KubeRay does not have", RAY, "spec.authOptions.mode", "tokens", "tokens"),
]  # fmt: skip
"""Faults that KubeRay's schemas alone know."""

UNKNOWN = [
    Fault("a misspelt field of a pod", RAY, f"{WORKER}.toleration", [], "toleration"),
    Fault(
        "a misspelt field of a container",
        RAY,
        f"{WORK}.imagePullPolicies",
        "Always",
        "imagePullPolicies",
    ),
    Fault("a misspelt field of metadata", RAY, "metadata.label", {}, "label"),
    Fault("a misspelt field of a Deployment", MLFLOW, "spec.replica", 1, "replica"),
    Fault("a misspelt field of a policy", "NetworkPolicy/ray", "spec.ingres", [], "ingres"),
    Fault("a wrong type in a StatefulSet", REDIS, "spec.replicas", "1", "is not of type"),
    Fault("a kind that does not exist", "Service/mlflow", "kind", "Servise", "has no Servise"),
]  # fmt: skip
"""Faults that Kubernetes' schemas know."""

UNSOUND = [
    Fault("a password of Redis", RAY,
          "spec.gcsFaultToleranceOptions.redisPassword", {"value": "x"}, "redisPassword"),
    Fault("a password in ray start", RAY, f"{HEAD}.rayStartParams.redis-password", "x", "redis-password"),
    Fault("a password in an environment", RAY,
          f"{WORK}.env.+", {"name": "DB_PASSWORD", "value": "x"}, "DB_PASSWORD"),
    Fault("a key of AWS in a command", MLFLOW, f"{BOX}.args.+", "AKIA" + 16 * "A", "a key of AWS"),
    Fault("a password in an address", MLFLOW, f"{BOX}.args.+", "--x=s3://me:x@store", "in an address"),
    Fault("a password after its option", REDIS, f"{BOX}.args.2", "x", "--requirepass"),
    Fault("a password in a file", "ConfigMap/mlflow", "data.more", "admin_password = x", "in a text"),
    Fault("a private key in a file", "ConfigMap/mlflow",
          "data.more", "-----BEGIN EC PRIVATE KEY-----", "a private key"),
    Fault("a Secret that nobody makes", RAY,
          f"{WORK}.envFrom.+", {"secretRef": {"name": "absent"}}, "Secret absent"),
    Fault("a token that nobody makes", RAY, "spec.authOptions.secretName", "absent", "Secret absent"),
    Fault("a key that its Secret lacks", MLFLOW,
          f"{BOX}.env.2.valueFrom.secretKeyRef.key", "absent", "has no absent"),
    Fault("a ConfigMap that nobody makes", MLFLOW,
          f"{POD}.volumes.1.configMap.name", "absent", "ConfigMap absent"),
    Fault("an account that nobody makes", RAY,
          f"{WORKER}.serviceAccountName", "absent", "ServiceAccount absent"),
    Fault("a missing limit", RAY, f"{WORK}.resources.limits.memory", GONE, "no memory in limits"),
    Fault("a missing request", MLFLOW, f"{BOX}.resources.requests", GONE, "no cpu in requests"),
    Fault("a misspelt resource", RAY, f"{WORK}.resources.limits.memroy", "1Gi", "memroy is no resource"),
    Fault("a request above its limit", RAY, f"{WORK}.resources.requests.cpu", "99", "more cpu"),
    Fault("a pod that may be root", RAY, f"{WORKER}.securityContext.runAsNonRoot", GONE, "may run as root"),
    Fault("a pod of root", REDIS, f"{POD}.securityContext.runAsUser", 0, "may run as root"),
    Fault("a container that may gain rights", RAY,
          f"{WORK}.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"),
    Fault("a capability", RAY,
          f"{WORK}.securityContext.capabilities", {"add": ["SYS_PTRACE"]}, "capabilities"),
    Fault("a writable root of the autoscaler", RAY,
          "spec.autoscalerOptions.securityContext.readOnlyRootFilesystem", False, "head.autoscaler: readOnly"),
    Fault("a writable root before a worker", RAY,
          f"{WORKER}.initContainers.0.securityContext", GONE, "certificate: readOnly"),
    Fault("a path of the node", RAY,
          f"{WORKER}.volumes.+", {"name": "x", "hostPath": {"path": "/"}}, "node's disk"),
    Fault("a token for Kubernetes", RAY, f"{WORKER}.automountServiceAccountToken", True, "holds a token"),
    Fault("an image of another version", RAY,
          f"{WORK}.image", "registry.example.com/sclip:0.0.9-cpu", "is not of"),
    Fault("an image without a version", REDIS, f"{BOX}.image", "redis:latest", "has no version"),
    Fault("a container without a probe", MLFLOW, f"{BOX}.livenessProbe", GONE, "no livenessProbe"),
    Fault("a probe of a closed port", RAY, f"{WORK}.ports.1", GONE, "a port that it does not open"),
    Fault("a volume that is not there", RAY,
          f"{WORK}.volumeMounts.+", {"name": "x", "mountPath": "/x"}, "no volume x"),
    Fault("more replicas than the most", RAY, f"{PARSER}.replicas", 17, "replicas <= maxReplicas"),
    Fault("a head that takes work", RAY, f"{HEAD}.rayStartParams.num-cpus", "2", "takes work"),
    Fault("shared memory beyond the pod's", RAY,
          f"{WORK}.resources.limits.memory", "8Gi", "half of the memory"),
    Fault("an object store beyond shared memory", RAY,
          f"{PARSER}.rayStartParams.object-store-memory", "9000000000", "object store"),
    Fault("shared memory on a disk", RAY, f"{WORKER}.volumes.0.emptyDir.medium", GONE, "on a disk"),
    Fault("a /tmp beyond the pod's disk", RAY,
          f"{WORKER}.volumes.1.emptyDir.sizeLimit", "99Gi", "/tmp may hold"),
    Fault("a grace shorter than the notice", RAY,
          f"{TRAINER}.template.spec.terminationGracePeriodSeconds", 60, "killed before"),
    Fault("a job that is stopped at once", RAY,
          f"{HEAD}.template.spec.containers.0.env.5", GONE, "no time for its checkpoint"),
    Fault("a trainer that GPU nodes repel", RAY,
          f"{TRAINER}.template.spec.tolerations", GONE, "taint of GPU nodes"),
    Fault("a service of no pod", "Service/mlflow", "spec.selector.more", "y", "selects no pod"),
    Fault("a service at another port", "Service/sclip-redis", "spec.ports.0.port", 6380, "as 6380"),
    Fault("labels that nobody selects", REDIS, "spec.template.metadata.labels", {"a": "b"}, "own pods"),
    Fault("a budget of no pod", "PodDisruptionBudget/sclip-head",
          "spec.selector.matchLabels.more", "y", "selects no pod"),
    Fault("nothing that denies the rest", "NetworkPolicy/deny-all",
          "spec.policyTypes", ["Ingress"], "no policy denies"),
    Fault("a policy that lets everybody in", "NetworkPolicy/ray-redis",
          "spec.ingress.0.from", GONE, "open to everybody"),
    Fault("a policy that leads everywhere", "NetworkPolicy/ray-head", "spec.egress.1.ports", GONE, "leads everywhere"),
    Fault("a policy of no pod", "NetworkPolicy/mlflow",
          "spec.podSelector.matchLabels.more", "y", "selects no pod"),
    Fault("a way in to a closed port", "NetworkPolicy/mlflow-postgres",
          "spec.ingress.0.ports.0.port", 5433, "listens on 5433"),
    Fault("a way out to a closed port", "NetworkPolicy/ray-head",
          "spec.egress.0.ports.0.port", 6380, "listens on 6380"),
    Fault("an address that no service has", MLFLOW, f"{BOX}.args.+", "--x=http://mlflaw:5000", "mlflaw:5000"),
]  # fmt: skip
"""Faults that no schema knows."""


def schema_problems(manifests: list[Manifest]) -> list[str]:
    """Return what the schemas at hand refuse."""
    return core_problems(manifests) + (kuberay_problems(manifests) if CRDS.is_dir() else [])


def other_problems(manifests: list[Manifest]) -> list[str]:
    """Return everything else that is wrong with manifests that are installed together."""
    found = reference_problems(manifests, documented_secrets()) + secret_problems(manifests)
    found += image_problems(manifests, images()) + safety_problems(manifests) + probe_problems(manifests)
    found += mount_problems(manifests) + ray_problems(manifests)
    return found + selector_problems(manifests) + policy_problems(manifests) + address_problems(manifests)


@pytest.fixture
def manifests() -> list[Manifest]:
    require_kubectl()
    return installed(TARGET)


def names(faults: list[Fault]) -> list[str]:
    return [fault.name for fault in faults]


def test_nothing_is_found_where_nothing_is_planted(manifests: list[Manifest]) -> None:
    assert schema_problems(manifests) + other_problems(manifests) == []


@pytest.mark.skipif(not CRDS.is_dir(), reason="needs KubeRay's schemas beside the checkout")
@pytest.mark.parametrize("fault", MISWRITTEN, ids=names(MISWRITTEN))
def test_kuberays_schemas_refuse(fault: Fault, manifests: list[Manifest]) -> None:
    fault.plant(manifests)
    assert any(fault.told in problem for problem in kuberay_problems(manifests))


@pytest.mark.parametrize("fault", UNKNOWN, ids=names(UNKNOWN))
def test_kubernetes_schemas_refuse(fault: Fault, manifests: list[Manifest]) -> None:
    fault.plant(manifests)
    assert any(fault.told in problem for problem in core_problems(manifests))


@pytest.mark.parametrize("fault", UNSOUND, ids=names(UNSOUND))
def test_the_other_checks_find(fault: Fault, manifests: list[Manifest]) -> None:
    fault.plant(manifests)
    found = other_problems(manifests)
    assert any(fault.told in problem for problem in found), found


def test_a_secret_among_the_manifests_is_found(manifests: list[Manifest]) -> None:
    manifests.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "any"}})
    assert any("a Secret;" in problem for problem in secret_problems(manifests))
