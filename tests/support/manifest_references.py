"""What manifests name: each Secret, ConfigMap and account must come from somewhere, and no secret stand in the text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from support.kustomized import Manifest, pods

KINDS = {
    "secretKeyRef": ("Secret", "name"),
    "secretRef": ("Secret", "name"),
    "secret": ("Secret", "secretName"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMap": ("ConfigMap", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}
"""Keys that hold a reference: the kind that is named, and the key of its name."""
BY_NAME = {
    "serviceAccountName": "ServiceAccount",
    "priorityClassName": "PriorityClass",
    "serviceName": "Service",
}
"""Keys whose value is the name."""

SECRET = re.compile(r"passw|secret|token|credential|api_?key|access_?key|session_?key|private", re.IGNORECASE)
HARMLESS = re.compile(r"(_FILE|_PATH|Name|Token)$|^(automount|secretName$)")
"""Of names that speak of secrets: those whose value is a place, or a switch."""
LITERALS = {
    "a key of AWS": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"://[^/\s:@]*:(?!\$\()[^/\s@]+@"),
    "a password in a text": re.compile(
        r"^\s*\w*(password|secret|token)\w*\s*[=:]\s*[^\s$]", re.IGNORECASE | re.MULTILINE
    ),
}


def walk(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield path, key and value of everything below a manifest."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield path, key, below
            yield from walk(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield f"{path}.{index}", "", below
            yield from walk(below, f"{path}.{index}")


def references(manifests: list[Manifest]) -> Iterator[tuple[str, str, str, str]]:
    """Yield place, kind, name and key (or none) of each reference."""
    for manifest in manifests:
        place = f"{manifest['kind']}/{manifest['metadata']['name']}"
        for path, key, value in walk(manifest.get("spec", {})):
            if key in KINDS and isinstance(value, dict):
                kind, name = KINDS[key]
                keys = [value["key"]] if "key" in value else [item["key"] for item in value.get("items", [])]
                for one in keys or [""]:
                    yield place + path, kind, value[name], one
            elif key in BY_NAME:
                yield place + path, BY_NAME[key], value, ""
            elif path.endswith("authOptions") and key == "secretName":
                yield place + path, "Secret", value, "auth_token"  # what the operator reads of it


def reference_problems(manifests: list[Manifest], secrets: dict[str, set[str]]) -> list[str]:
    """Return references to what neither the manifests make nor the README says to make."""
    made = {(m["kind"], m["metadata"]["name"]): set(m.get("data", {})) for m in manifests}
    made |= {("Secret", name): keys for name, keys in secrets.items()}
    problems = []
    for place, kind, name, key in references(manifests):
        if (kind, name) not in made:
            problems.append(f"{place}: nothing makes the {kind} {name}")
        elif key and key not in made[kind, name]:
            problems.append(f"{place}: the {kind} {name} has no {key}")
    return problems


def secret_problems(manifests: list[Manifest]) -> list[str]:
    """Return each place where a secret stands in the text instead of a reference to one."""
    problems = []
    for manifest in manifests:
        place = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Secret":
            problems.append(f"{place}: a Secret; the README says how each user makes their own")
        for path, key, value in walk(manifest):
            if isinstance(value, dict):
                named = value.get("name", key)
                literal = value.get("value")
                if literal and isinstance(named, str) and _tells(named) and not str(literal).startswith("$("):
                    problems.append(f"{place}{path}: {named} has a value; use valueFrom")
                continue
            if isinstance(value, list):
                flags = [str(word) for word in value]
                for flag, word in itertools.pairwise(flags):
                    if (
                        flag.startswith("--")
                        and _tells(re.sub("pass$", "password", flag))
                        and word[:2] != "$("
                    ):
                        problems.append(f"{place}{path}: {flag} is followed by a literal")
                continue
            if path.endswith("rayStartParams") and _tells(key):
                problems.append(f"{place}{path}: {key} in ray start's parameters")
            told = "" if key.endswith(".py") else str(value)
            problems += [
                f"{place}{path}.{key}: {what}" for what, found in LITERALS.items() if found.search(told)
            ]
    return problems


def _tells(name: str) -> bool:
    return bool(SECRET.search(name)) and not HARMLESS.search(name)


def image_problems(manifests: list[Manifest], images: set[str]) -> list[str]:
    """Return images that are neither the project's, at the one version, nor another's at a version of its own."""
    problems = []
    for pod in pods(manifests):
        for container in pod.spec.get("initContainers", []) + pod.spec["containers"]:
            image = container["image"]
            repository, _, tag = image.rpartition(":")
            if "sclip" in image and image not in images:
                problems.append(f"{pod.place}.{container['name']}: {image} is not of {sorted(images)}")
            if not repository or tag == "latest" or not re.search(r"\d+\.\d+", tag):
                problems.append(f"{pod.place}.{container['name']}: {image} has no version")
    return problems
