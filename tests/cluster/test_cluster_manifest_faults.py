"""Every fault planted into the manifests, such as a misspelled field or a hole in a policy, is found and named."""

from __future__ import annotations

from typing import Any

import pytest

from support.kustomized import find, installed
from support.manifest_rules import problems
from support.manifest_schemas import CRDS, kuberay_problems, pod_schema_problems

RAY, REDIS, MLFLOW, SCRIPT = (
    "RayCluster/sclip StatefulSet/sclip-redis Deployment/mlflow ConfigMap/mlflow".split()
)
HEAD, TRAINER = f"{RAY} spec.headGroupSpec", f"{RAY} spec.workerGroupSpecs.1.template.spec"
PARSERS = f"{RAY} spec.workerGroupSpecs.0"
POD, BOX = f"{PARSERS}.template.spec", f"{PARSERS}.template.spec.containers.0"
MLFLOW_BOX, REDIS_POD = f"{MLFLOW} spec.template.spec.containers.0", f"{REDIS} spec.template.spec"
GONE = object()
"""Planted value that removes the key."""


def planted(location: str, value: Any) -> Any:
    """Return manifests with a value planted at "MANIFEST KEYS" (keys joined by dots); "+" appends to a list."""
    manifests = installed("kuberay/overlays/gpu-multi-node")
    manifest, path = location.split()
    parent: Any = find(manifests, *manifest.split("/"))
    *way, last = path.split(".")
    for step in way:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    key = int(last) if last.isdigit() else last
    if last == "+":
        parent.append(value)
    elif value is GONE:
        del parent[key]
    else:
        parent[key] = value
    return manifests


@pytest.mark.skipif(not CRDS.is_dir(), reason="no schemas of KubeRay in ../shared/schemas")
@pytest.mark.parametrize(
    ("location", "value", "problem"),
    [
        (f"{PARSERS}.minReplica", 0, "minReplica"),
        (f"{HEAD}.rayStartParams.num-cpus", 0, "is not of type"),
        (f"{RAY} spec.authOptions.mode", "tokens", "tokens"),
    ],
)
def test_kuberays_schemas_refuse_a_planted_fault(location: str, value: Any, problem: str) -> None:
    assert problem in " ".join(kuberay_problems(planted(location, value)))


@pytest.mark.parametrize(
    ("location", "value"),
    [(f"{BOX}.imagePullPolicies", "Always"), (f"{RAY} metadata.label", {})],
)
def test_kubernetes_schemas_refuse_a_planted_fault(location: str, value: Any) -> None:
    assert location.rpartition(".")[2] in " ".join(pod_schema_problems(planted(location, value)))


@pytest.mark.parametrize(("location", "value", "problem"), [
    (f"{RAY} spec.gcsFaultToleranceOptions.redisPassword", {"value": "x"}, "a secret in redisPassword"),
    (f"{SCRIPT} data.more", "admin_password = x", "a secret in admin_password"),
    (f"{SCRIPT} kind", "Secret", "a Secret; the README makes them"),
    (f"{BOX}.envFrom.+", {"secretRef": {"name": "absent"}}, "nothing makes the Secret absent"),
    (f"{BOX}.resources.limits.memory", GONE, "ray-worker is not bounded"),
    (f"{BOX}.resources.requests.hugepages-2Mi", "64Mi", "ray-worker is not bounded"),
    (f"{POD}.securityContext.runAsNonRoot", GONE, "parser: may run as root"),
    (f"{REDIS_POD}.securityContext.seccompProfile", GONE, "sclip-redis: has no seccomp profile"),
    (f"{BOX}.securityContext.capabilities", {"add": ["SYS_PTRACE"]}, "ray-worker may gain rights"),
    (f"{POD}.volumes.+", {"name": "x", "hostPath": {"path": "/"}}, "parser: mounts its node's disk"),
    (f"{POD}.hostPID", True, "parser: shares its node's processes"),
    (f"{POD}.automountServiceAccountToken", True, "parser: holds a token"),
    (f"{BOX}.image", "registry.example.com/sclip:0.0.9-cpu", "ray-worker has an image of no version, or of another"),
    (f"{MLFLOW_BOX}.livenessProbe", GONE, "mlflow has no probe"),
    (f"{BOX}.volumeMounts.+", {"name": "x", "mountPath": "/x"}, "parser: mounts other volumes than it has"),
    (f"{PARSERS}.replicas", 17, "parser: not minReplicas <= replicas <= maxReplicas"),
    (f"{HEAD}.rayStartParams.num-cpus", "2", "head: takes work"),
    (f"{BOX}.resources.limits.memory", "8Gi", "parser: not object store <= /dev/shm < half of the memory"),
    (f"{POD}.volumes.0.emptyDir.medium", GONE, "parser: /dev/shm is on a disk"),
    (f"{TRAINER}.terminationGracePeriodSeconds", 60, "trainer: is killed before its notice has run out"),
    (f"{HEAD}.template.spec.containers.0.env.5", GONE, "head: a stopped job has no time for its checkpoint"),
    (f"{TRAINER}.tolerations", GONE, "trainer: does not bear the taint of GPU nodes"),
    ("Service/mlflow spec.selector.more", "y", "Service/mlflow: selects no pod"),
    ("Service/sclip-redis spec.ports.0.port", 6380, "does not listen on 6380"),
    ("NetworkPolicy/deny-all spec.policyTypes", ["Ingress"], "no policy denies what the others do not allow"),
    ("NetworkPolicy/ray-redis spec.ingress.0.from", GONE, "stranger reaches redis at [redis], not at []"),
    ("NetworkPolicy/ray-head spec.egress.1.ports", GONE, "head reaches internet at [all], not at [api https]"),
    ("NetworkPolicy/ray spec.egress.2.to.0.ipBlock.except", GONE, "trainer reaches metadata at [https], not at []"),
    ("NetworkPolicy/mlflow-postgres spec.ingress.0.ports.0.port", 5433, "mlflow reaches mlflow-postgres at []"),
    (f"{MLFLOW_BOX}.args.+", "--x=http://mlflaw:5000", "no service answers at mlflaw:5000"),
])  # fmt: skip
def test_our_own_rules_find_a_planted_fault(location: str, value: Any, problem: str) -> None:
    assert problem in "\n".join(problems(planted(location, value)))
