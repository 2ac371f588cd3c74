"""Rules for manifests installed together that no schema checks: names must exist, and sizes must fit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import yaml

from support.command_lines import blocks, split
from support.kustomized import CLUSTER, Manifest, pods, ray_cluster
from support.manifest_network import network_problems, selects

GPU = "nvidia.com/gpu"
EFA, RDMA, PAGES = "vpc.amazonaws.com/efa", "rdma/rdma_shared_device_a", "hugepages-2Mi"
RESOURCES = {"cpu", "memory", "ephemeral-storage"}
SECURE: dict[str, Any] = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
SECURE["capabilities"] = {"drop": ["ALL"]}
UNITS: dict[str, Decimal | int] = {"": 1, "m": Decimal("0.001"), "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
RAY_STOP_S = 3
"""Seconds that Ray gives a stopped job, unless RAY_JOB_STOP_WAIT_TIME_S says otherwise."""


def quantity(text: str) -> Decimal:
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", text).groups()  # type: ignore[union-attr]
    return Decimal(number) * UNITS[unit]


def project_images() -> set[str]:
    text = (CLUSTER / "kuberay" / "images" / "kustomization.yaml").read_text()
    return {f"{image['newName']}:{image['newTag']}" for image in yaml.safe_load(text)["images"]}


def pod_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield rights that a pod does not need, and containers without resource limits, probes or a version."""
    for pod in pods(manifests):
        user, volumes = pod.spec.get("securityContext", {}), pod.spec.get("volumes", [])
        mounted = {
            mount["name"] for container in pod.containers for mount in container.get("volumeMounts", ())
        }
        rules: dict[str, Any] = {
            "may run as root": user.get("runAsNonRoot") is True and user.get("runAsUser"),
            "has no seccomp profile": user.get("seccompProfile") == {"type": "RuntimeDefault"},
            "shares its node's processes": not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(),
            "mounts its node's disk": not any("hostPath" in volume for volume in volumes),
            "holds a token for Kubernetes and asks it nothing":
                pod.spec.get("automountServiceAccountToken") is False or pod.place.endswith(".head"),
            "mounts other volumes than it has": mounted == pod.claims | {volume["name"] for volume in volumes},
        }  # fmt: skip
        for container in pod.containers:
            name, image = container["name"], container["image"]
            versioned = re.search(r":v?\d+\.\d+[\w.-]*$", image) and "sclip" not in image
            rules |= {
                f"{name} may gain rights or write to its root": container.get("securityContext") == SECURE,
                f"{name} is not bounded in CPU, memory and disk": _is_bounded(container.get("resources", {})),
                f"{name} has no probe, or one of a closed port": not pod.watched(name) or _is_probed(container),
                f"{name} has an image of no version, or of another": versioned or image in project_images(),
            }  # fmt: skip
        yield from (f"{pod.place}: {wrong}" for wrong, holds in rules.items() if not holds)


def _is_bounded(resources: Manifest) -> bool:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    whole = (GPU, EFA, RDMA, PAGES)  # Kubernetes wants equal requests and limits of these
    named = requests.keys() - {*whole} == limits.keys() - {*whole} == RESOURCES
    equal = all(requests.get(name) == limits.get(name) for name in whole)
    return (
        named
        and equal
        and all(quantity(requests[name]) <= quantity(limits.get(name, "0")) for name in requests)
    )


def _is_probed(container: Manifest) -> bool:
    ports = {None, *(port["name"] for port in container.get("ports", ()))}
    probes = [container.get(kind) for kind in ("readinessProbe", "livenessProbe")]
    return all(probe and probe.get("httpGet", {}).get("port") in ports for probe in probes)


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, value
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in below:
        if not str(key).endswith(".py"):  # the scripts of a ConfigMap
            yield from walk(inner, f"{path}.{key}")


REFERENCES = {
    "secretKeyRef": "Secret", "secretRef": "Secret", "secret": "Secret", "authOptions": "Secret",
    "configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap", "configMap": "ConfigMap",
    "serviceAccountName": "ServiceAccount", "priorityClassName": "PriorityClass", "serviceName": "Service",
    "claimName": "PersistentVolumeClaim",
}  # fmt: skip
"""Maps each key that refers to an object to the object's kind. The name is the key's value or inside it."""


def references(manifests: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and key ("" for none) of every object that the manifests refer to."""
    for path, value in walk([manifest.get("spec", {}) for manifest in manifests]):
        key = path.rpartition(".")[2]
        if key in REFERENCES and isinstance(value, dict):
            items = [value, *value.get("items", ())]
            keys = {item["key"] for item in items if "key" in item}
            for one in keys or {
                "auth_token" if key == "authOptions" else ""
            }:  # the key that the operator reads
                yield REFERENCES[key], value.get("secretName") or value["name"], one
        elif key in REFERENCES and isinstance(value, str):
            yield REFERENCES[key], value, ""


def documented_secrets() -> dict[str, set[str]]:
    page = (CLUSTER / "kuberay" / "README.md").read_text()
    commands = [command for block in blocks(page) for command in split(block)]
    made = {words[4]: words[3:] for words in commands if words[:3] == ["kubectl", "create", "secret"]}
    return {
        name: {"tls.crt", "tls.key"} if kind == "tls"
        else set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", " ".join(options)))
        for name, (kind, _, *options) in made.items()
    }  # fmt: skip


def reference_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield references to objects that neither the manifests nor the README create, and addresses of no service."""
    made = {(m["kind"], m["metadata"]["name"]): {"", *m.get("data", {})} for m in manifests}
    made |= {("Secret", name): {"", *keys} for name, keys in documented_secrets().items()}
    for kind, name, key in references(manifests):
        if key not in made.get((kind, name), ()):
            yield f"nothing makes the {kind} {name} {key}"
    services = [manifest for manifest in manifests if manifest["kind"] == "Service"]
    answers = {
        f"{one['metadata']['name']}:{port['port']}" for one in services for port in one["spec"]["ports"]
    }
    for path, value in walk(manifests):
        addresses = re.findall(r"(?:://|@)([a-z][a-z0-9-]*:\d+)", value) if isinstance(value, str) else ()
        yield from (
            f"{path}: no service answers at {address}" for address in addresses if address not in answers
        )


def selector_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield selectors that match no pod of theirs, and service ports on which the matched pods do not listen."""
    for manifest in [m for m in manifests if "selector" in m.get("spec", {})]:
        place, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest["spec"]
        own = manifest["kind"] in ("Deployment", "StatefulSet")
        selector = {"matchLabels": spec["selector"]} if manifest["kind"] == "Service" else spec["selector"]
        chosen = [pod for pod in pods([manifest] if own else manifests) if selects(selector, pod.labels)]
        if not chosen:
            yield f"{place}: selects no pod"
        for port, pod in itertools.product(spec.get("ports", ()), chosen):
            if pod.ports.get(port["targetPort"]) != port["port"]:
                yield f"{place}: {pod.place} does not listen on {port['port']}"


SECRET = re.compile(
    r"""(?imx) \b(AKIA|ASIA)[0-9A-Z]{16}\b | -----BEGIN\ [A-Z ]*PRIVATE\ KEY----- | ://[^/\s:@]*:(?!\$\()[^/\s@]+@
    | ^[ \w-]* (passw|requirepass|secret|token|credential|api_?key|access_?key|session_?key|private)
      (?!\w*(_FILE|_PATH|Name|AccountToken)\s*[=:]) [\w-]* \s* [=:] \s* (?!\$\()[^\s]"""
)
"""A secret in plain text: an AWS or TLS key, a password in an address, or a value with a telling name."""


def secret_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield each place where a secret stands in the text instead of a reference to one."""
    for path, value in walk(manifests):
        key = path.rpartition(".")[2]
        texts = []
        if isinstance(value, dict):
            if value.get("kind") == "Secret":
                yield f"{path}: a Secret; the README makes them"
            texts = [f"{value.get('name', key)}={value['value']}"] if "value" in value else []
        elif isinstance(value, list):
            words = [str(word) for word in value]
            texts = [f"{flag}={word}" for flag, word in itertools.pairwise(words) if flag.startswith("--")]
        elif isinstance(value, str):
            texts = [value, f"{key}={value}"]
        yield from (f"{path}: a secret in {text.split('=')[0]}" for text in texts if SECRET.search(text))


def ray_problems(manifests: list[Manifest]) -> Iterator[str]:
    cluster = ray_cluster(manifests)
    head = {"groupName": "head", "minReplicas": 1, "replicas": 1, "maxReplicas": 1} | cluster["headGroupSpec"]
    for group in (head, *cluster["workerGroupSpecs"]):
        start, spec = group["rayStartParams"], group["template"]["spec"]
        container, grace_s = spec["containers"][0], spec["terminationGracePeriodSeconds"]
        limits = container["resources"]["limits"]
        environment = {e["name"]: e.get("value") for e in container["env"]}
        memory, disk = (quantity(limits.get(name, "0")) for name in ("memory", "ephemeral-storage"))
        volumes = {volume["name"]: volume.get("emptyDir") for volume in spec["volumes"]}
        shared = quantity(volumes["shared-mem"]["sizeLimit"])
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0])
        stop_s = int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", RAY_STOP_S))
        rules = {
            "takes work": group is not head or start.get("num-cpus") == "0",
            "a stopped job has no time for its checkpoint": group is not head or RAY_STOP_S < stop_s < grace_s,
            "is killed before its notice has run out": int(hook[-1]) < grace_s,
            "not minReplicas <= replicas <= maxReplicas":
                0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] >= 1,
            "/dev/shm is on a disk": volumes["shared-mem"].get("medium") == "Memory",
            "not object store <= /dev/shm < half of the memory, which both count in":
                Decimal(start["object-store-memory"]) <= shared < memory / 2,
            "/tmp may hold more than the pod's limit, which evicts it": quantity(volumes["tmp"]["sizeLimit"]) <= disk,
            "does not bear the taint of GPU nodes":
                GPU not in limits or GPU in {toleration["key"] for toleration in spec.get("tolerations", ())},
        }  # fmt: skip
        yield from (f"{group['groupName']}: {wrong}" for wrong, holds in rules.items() if not holds)


def problems(manifests: list[Manifest]) -> list[str]:
    checks = (
        pod_problems, reference_problems, selector_problems, secret_problems, network_problems, ray_problems,
    )  # fmt: skip
    return [problem for check in checks for problem in check(manifests)]
