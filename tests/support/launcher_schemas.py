"""Check a launcher file against a strict form of Ray's schema, and its machines against AWS' and GCP's descriptions.

Ray's schema accepts any key in `provider` and in a node type, and does not check a cloud's `node_config`.
"""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from typing import Any

import botocore.session
import jsonschema
import referencing.jsonschema
from botocore.validate import ParamValidator


def mistakes(cloud: str, config: Any) -> list[str]:
    check = {"aws": _aws_mistakes, "gcp": _gcp_mistakes}[cloud]
    wrong = [error.message for error in _ray_schema().iter_errors(config)]
    for node_type in config["available_node_types"].values():
        wrong += check(node_type["node_config"])
    return wrong


@cache
def _ray_schema() -> Any:
    schema = json.loads(importlib.resources.files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    schema["properties"]["provider"]["additionalProperties"] = False
    schema["properties"]["available_node_types"]["patternProperties"][".*"]["additionalProperties"] = False
    return jsonschema.validators.validator_for(schema)(schema)


@cache
def _aws_machine() -> Any:
    service = botocore.session.get_session().get_service_model("ec2")
    return service.operation_model("RunInstances").input_shape


def _aws_mistakes(machine: Any) -> list[str]:
    report = ParamValidator().validate({**machine, "MinCount": 1, "MaxCount": 1}, _aws_machine())
    return [report.generate_report()] if report.has_errors() else []


def _gcp_mistakes(machine: Any) -> list[str]:
    return [error.message for error in _gcp_schema().iter_errors(machine)]


@cache
def _gcp_schema() -> Any:
    folder = importlib.resources.files("googleapiclient.discovery_cache")
    text = folder.joinpath("documents", "compute.v1.json").read_text()

    def strict(schema: dict[str, Any]) -> dict[str, Any]:
        if "properties" in schema:
            schema["additionalProperties"] = False
        if schema.get("format") in ("int64", "uint64"):  # may be text or a number
            schema["type"] = ["string", "integer"]
        return schema

    schemas = json.loads(text, object_hook=strict)["schemas"]
    for schema in schemas.values():
        del schema["id"]
    resource = referencing.jsonschema.DRAFT202012.create_resource
    registry = referencing.Registry().with_resources((name, resource(one)) for name, one in schemas.items())
    return jsonschema.Draft202012Validator({"$ref": "Instance"}, registry=registry)
