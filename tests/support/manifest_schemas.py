"""Manifests against the schemas of those who read them: Kubernetes' own and KubeRay's, where no unknown key passes."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema
import kubernetes_validate

from support.kustomized import Manifest, pods
from support.paths import SHARED

KUBERNETES = ("1.33", "1.37")
"""Oldest and newest release whose schemas are at hand."""
CRDS = SHARED / "schemas"


def core_problems(manifests: list[Manifest]) -> list[str]:
    """Return what Kubernetes would refuse or ignore; of a RayCluster and RayJob their metadata and pod templates."""
    problems = []
    for manifest in manifests:
        place = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["apiVersion"] == "ray.io/v1":
            named = {"metadata": {"name": "any"}}
            checked = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}]
            checked += [
                {"apiVersion": "v1", "kind": "PodTemplate", "template": pod.template} | named
                for pod in pods([manifest])
            ]
        else:
            checked = [manifest]
        problems += [f"{place}: {told}" for one in checked for told in _core(json.dumps(one))]
    return problems


@functools.cache  # most manifests of two sizes are the same, and a look at one takes a fifth of a second
def _core(text: str) -> list[str]:
    manifest, problems = json.loads(text), []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"Kubernetes {version}: {error}")
        except kubernetes_validate.SchemaNotFoundError:
            problems.append(f"Kubernetes {version} has no {manifest['kind']} of {manifest['apiVersion']}")
    return problems


def kuberay_problems(manifests: list[Manifest]) -> list[str]:
    """Return what does not follow KubeRay's CRDs; a key that they do not list is an error."""
    problems = []
    for manifest in manifests:
        if manifest["apiVersion"] == "ray.io/v1":
            for error in _validator(manifest["kind"]).iter_errors(manifest):
                path = ".".join(str(part) for part in error.absolute_path)
                problems.append(f"{manifest['kind']}: {path}: {error.message[:300]}")
    return problems


@functools.cache
def _validator(kind: str) -> jsonschema.Draft7Validator:
    schema = json.loads((CRDS / f"ray.io_{kind.lower()}s_v1.json").read_text(encoding="utf-8"))
    schema["properties"]["metadata"] = {}  # Kubernetes' own, which core_problems looks at
    return jsonschema.Draft7Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    """Return a schema whose objects take the keys that they list and no others."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    listed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if listed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
