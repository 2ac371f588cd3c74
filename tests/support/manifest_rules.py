"""What no schema knows of manifests that are installed together: names that stand for something, sizes that fit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import yaml

from support.command_lines import blocks, split
from support.kustomized import CLUSTER, Manifest, Pod, pods, ray_cluster
from support.manifest_network import network_problems, selects

GPU = "nvidia.com/gpu"
RESOURCES = {"cpu", "memory", "ephemeral-storage"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
UNITS: dict[str, Decimal | int] = {"": 1, "m": Decimal("0.001"), "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
RAY_STOP_S = 3
"""What Ray gives a job that is stopped, unless RAY_JOB_STOP_WAIT_TIME_S says otherwise."""


def quantity(text: str) -> Decimal:
    """Return the number that a quantity of Kubernetes means: 500m, 2Gi."""
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    return Decimal(number) * UNITS[unit]


def project_images() -> set[str]:
    """Return the project's images, which one file names."""
    text = (CLUSTER / "kuberay" / "images" / "kustomization.yaml").read_text()
    return {f"{image['newName']}:{image['newTag']}" for image in yaml.safe_load(text)["images"]}


def _has_version(image: str) -> bool:
    return image in project_images() or (
        "sclip" not in image and bool(re.search(r":v?\d+\.\d+[\w.-]*$", image))
    )


def _mounts(pod: Pod) -> set[str]:
    containers = pod.spec.get("initContainers", []) + pod.spec["containers"]
    return {mount["name"] for container in containers for mount in container.get("volumeMounts", ())}


def _is_bounded(resources: Manifest) -> bool:
    return all(
        resources.get(kind, {}).keys() - {GPU} == RESOURCES for kind in ("requests", "limits")
    ) and all(
        quantity(resources["limits"][name]) >= quantity(most) for name, most in resources["requests"].items()
    )


def _is_probed(container: Manifest) -> bool:
    ports = {port["name"] for port in container.get("ports", ())}
    probes = [container.get(kind) for kind in ("readinessProbe", "livenessProbe")]
    return all(probe and probe.get("httpGet", {}).get("port") in {*ports, None} for probe in probes)


POD_RULES: dict[str, Callable[[Pod], Any]] = {
    "may run as root": lambda pod: (
        pod.spec["securityContext"].get("runAsNonRoot") is True
        and pod.spec["securityContext"].get("runAsUser")
    ),
    "has no seccomp profile": lambda pod: (
        pod.spec["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"}
    ),
    "shares its node's network or disk": lambda pod: (
        not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        and not any("hostPath" in volume for volume in pod.spec.get("volumes", ()))
    ),
    "holds a token for Kubernetes and asks it nothing": lambda pod: (
        pod.spec.get("automountServiceAccountToken") is False or pod.place.endswith(".head")
    ),
    "mounts other volumes than it has": lambda pod: (
        _mounts(pod) == pod.claims | {volume["name"] for volume in pod.spec.get("volumes", ())}
    ),
}
CONTAINER_RULES: dict[str, Callable[[Manifest], Any]] = {
    "may gain rights or write to its root": lambda container: container.get("securityContext") == RESTRICTED,
    "is not bounded in CPU, memory and disk": lambda container: _is_bounded(container.get("resources", {})),
    "has an image of no version, or of another": lambda container: _has_version(container["image"]),
}
"""Rules of all containers, each by what is wrong where it does not hold."""


def pod_problems(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        yield from (f"{pod.place}: {wrong}" for wrong, holds in POD_RULES.items() if not holds(pod))
        for container in pod.spec.get("initContainers", []) + pod.spec["containers"]:
            place = f"{pod.place}.{container['name']}"
            yield from (
                f"{place}: {wrong}" for wrong, holds in CONTAINER_RULES.items() if not holds(container)
            )
        for container in pod.spec[
            "containers"
        ]:  # the operator restarts the autoscaler, a submitter ends by itself
            if not (
                container["name"] == "autoscaler" or pod.place.endswith(".submitter") or _is_probed(container)
            ):
                yield f"{pod.place}.{container['name']}: has no probe, or one of a port that it does not open"


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of everything below a manifest."""
    yield path, value
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in below:
        if not str(key).endswith(".py"):  # the scripts of a ConfigMap
            yield from walk(inner, f"{path}.{key}")


REFERENCES = {
    "secretKeyRef": "Secret", "secretRef": "Secret", "secret": "Secret", "authOptions": "Secret",
    "configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap", "configMap": "ConfigMap",
    "serviceAccountName": "ServiceAccount", "priorityClassName": "PriorityClass", "serviceName": "Service",
}  # fmt: skip
"""Keys that name something of a kind, as their value or in it."""


def references(manifests: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and key ("" for none) of everything that manifests name."""
    for path, value in walk([manifest.get("spec", {}) for manifest in manifests]):
        key = path.rpartition(".")[2]
        if key in REFERENCES and isinstance(value, dict):
            items = [value, *value.get("items", ())]
            keys = {item["key"] for item in items if "key" in item}
            for one in keys or {"auth_token" if key == "authOptions" else ""}:  # what the operator reads
                yield REFERENCES[key], value.get("secretName") or value["name"], one
        elif key in REFERENCES and isinstance(value, str):
            yield REFERENCES[key], value, ""


def documented_secrets() -> dict[str, set[str]]:
    """Return the Secrets that the README makes, with their keys."""
    page = (CLUSTER / "kuberay" / "README.md").read_text()
    commands = [command for block in blocks(page) for command in split(block)]
    made = {words[4]: words[3:] for words in commands if words[:3] == ["kubectl", "create", "secret"]}
    return {
        name: {"tls.crt", "tls.key"} if kind == "tls"
        else set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", " ".join(options)))
        for name, (kind, _, *options) in made.items()
    }  # fmt: skip


def reference_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield names that neither the manifests make nor the README, selectors of nothing and addresses of nobody."""
    made = {(m["kind"], m["metadata"]["name"]): set(m.get("data", {})) for m in manifests}
    made |= {("Secret", name): keys for name, keys in documented_secrets().items()}
    for kind, name, key in references(manifests):
        if key not in {"", *made.get((kind, name), ())} or (kind, name) not in made:
            yield f"nothing makes the {kind} {name} {key}"
    services, every = set(), list(pods(manifests))
    for manifest in manifests:
        place, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        selector, chosen = spec.get("selector"), every
        if manifest["kind"] == "Service":
            selector = {"matchLabels": selector}
            services |= {f"{manifest['metadata']['name']}:{port['port']}" for port in spec["ports"]}
        elif manifest["kind"] in ("Deployment", "StatefulSet"):
            chosen = list(pods([manifest]))
        chosen = [pod for pod in chosen if selector and selects(selector, pod.labels)]
        if selector and not chosen:
            yield f"{place}: selects no pod"
        for port, pod in itertools.product(spec.get("ports", ()), chosen):
            if pod.ports.get(port["targetPort"]) != port["port"]:
                yield f"{place}: {pod.place} does not listen on {port['port']}"
    for path, value in walk(manifests):
        for address in re.findall(
            r"(?:://|@)([a-z][a-z0-9-]*:\d+)", str(value) * (not isinstance(value, dict | list))
        ):
            if address not in services:
                yield f"{path}: no service answers at {address}"


SECRET = re.compile(
    r"""(?imx) \b(AKIA|ASIA)[0-9A-Z]{16}\b | -----BEGIN\ [A-Z ]*PRIVATE\ KEY----- | ://[^/\s:@]*:(?!\$\()[^/\s@]+@
    | ^[ \w-]* (passw|requirepass|secret|token|credential|api_?key|access_?key|session_?key|private)
      (?!\w*(_FILE|_PATH|Name|AccountToken)\s*[=:]) [\w-]* \s* [=:] \s* (?!\$\()[^\s]"""
)
"""A key or password itself: one of AWS, of TLS, in an address, or the value of a setting whose name speaks of one."""


def secret_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield each place where a secret stands in the text instead of a reference to one."""
    for path, value in walk(manifests):
        key = path.rpartition(".")[2]
        texts = []
        if isinstance(value, dict):
            yield from (
                f"{path}: a Secret; the README makes them" for _ in [0] if value.get("kind") == "Secret"
            )
            texts = [f"{value.get('name', key)}={value['value']}"] if "value" in value else []
        elif isinstance(value, list):
            words = [str(word) for word in value]
            texts = [f"{flag}={word}" for flag, word in itertools.pairwise(words) if flag.startswith("--")]
        elif isinstance(value, str):
            texts = [value, f"{key}={value}"]
        yield from (f"{path}: a secret in {text.split('=')[0]}" for text in texts if SECRET.search(text))


def ray_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield numbers of a Ray cluster that contradict each other."""
    cluster = ray_cluster(manifests)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "head: takes work"
    for group in workers:
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] >= 1:
            yield f"{group['groupName']}: not minReplicas <= replicas <= maxReplicas"
    spec = head["template"]["spec"]
    environment = {env["name"]: env.get("value") for env in spec["containers"][0]["env"]}
    stop_s = int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", RAY_STOP_S))
    if not RAY_STOP_S < stop_s < spec["terminationGracePeriodSeconds"]:
        yield "head: a stopped job has no time for its checkpoint before the pod ends"
    for group in [{"groupName": "head"} | head, *workers]:
        yield from (f"{group['groupName']}: {wrong}" for wrong in _group_problems(group))


def _group_problems(group: Manifest) -> Iterator[str]:
    spec = group["template"]["spec"]
    container = spec["containers"][0]
    limits = container["resources"]["limits"]
    memory, disk = (quantity(limits.get(name, "0")) for name in ("memory", "ephemeral-storage"))
    volumes = {volume["name"]: volume.get("emptyDir") for volume in spec["volumes"]}
    if volumes["shared-mem"].get("medium") != "Memory":
        yield "/dev/shm is on a disk"
    shared = quantity(volumes["shared-mem"]["sizeLimit"])
    if not Decimal(group["rayStartParams"]["object-store-memory"]) <= shared < memory / 2:
        yield "not object store <= /dev/shm < half of the memory, which both count in"
    if quantity(volumes["tmp"]["sizeLimit"]) > disk:
        yield "/tmp may hold more than the pod's limit, which evicts it"
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    if hook and int(hook[-1]) >= spec["terminationGracePeriodSeconds"]:
        yield "is killed before its notice has run out"
    if GPU in limits and GPU not in {toleration["key"] for toleration in spec.get("tolerations", ())}:
        yield "does not bear the taint of GPU nodes"


def problems(manifests: list[Manifest]) -> list[str]:
    """Return everything that is wrong with manifests which are installed together."""
    checks = (pod_problems, reference_problems, secret_problems, network_problems, ray_problems)
    return [problem for check in checks for problem in check(manifests)]
