"""Check Ray's manifests against KubeRay's schemas, and their pods against Kubernetes' own. Unknown keys are errors.

`make check` checks the other manifests; Ray's must be rendered and split before they can be checked.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate

from support.kustomized import Manifest, pods
from support.paths import SHARED

KUBERNETES = ("1.33", "1.37")
"""Oldest and newest Kubernetes release whose schemas are available."""
CRDS = SHARED / "schemas"


def pod_schema_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield what Kubernetes would refuse or ignore in the metadata and pods of a RayCluster or RayJob."""
    for manifest in [m for m in manifests if m["apiVersion"] == "ray.io/v1"]:
        parts: list[Manifest] = [{"kind": "ConfigMap", "metadata": manifest["metadata"]}]
        named = {"kind": "PodTemplate", "metadata": {"name": "any"}}
        parts += [named | {"template": pod.template} for pod in pods([manifest])]
        for part in parts:
            yield from _core_problems(json.dumps({"apiVersion": "v1"} | part))


@functools.cache  # most pods of two overlays are equal, and checking one takes 0.2 s
def _core_problems(manifest: str) -> list[str]:
    problems = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(json.loads(manifest), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"Kubernetes {version}: {error}")
    return problems


def kuberay_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield violations of KubeRay's CRDs; a key that they do not list is a violation."""
    for manifest in [m for m in manifests if m["apiVersion"] == "ray.io/v1"]:
        for error in _validator(manifest["kind"]).iter_errors(manifest):
            yield f"{manifest['kind']}: {error.json_path}: {error.message[:300]}"


@functools.cache
def _validator(kind: str) -> jsonschema.Draft7Validator:
    schema = json.loads((CRDS / f"ray.io_{kind.lower()}s_v1.json").read_text())
    schema["properties"]["metadata"] = {}  # Kubernetes' schemas check it
    return jsonschema.Draft7Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    listed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if listed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
