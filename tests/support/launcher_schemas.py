"""What may stand in a launcher's file: Ray's own schema made strict, and the machines as AWS and GCP describe them."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
import jsonschema
import referencing
from botocore.validate import ParamValidator


def mistakes(cloud: str, config: Any) -> list[str]:
    """Return what is wrong with a launcher's file.

    Ray's own schema lets any key pass in `provider` and in a node type, and says nothing of what a cloud takes as
    `node_config`: here the former is an error, the latter is held against the cloud's own description of its API.
    """
    validator = jsonschema.validators.validator_for(_ray_schema())(_ray_schema())
    found = [error.message for error in validator.iter_errors(config)]
    for name, node_type in config["available_node_types"].items():
        check = {"aws": _aws_machine, "gcp": _gcp_machine}[cloud]
        found += [f"{name}: {message}" for message in check(node_type["node_config"])]
    return found


@cache
def _ray_schema() -> Any:
    schema = json.loads(importlib.resources.files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    schema["properties"]["provider"]["additionalProperties"] = False
    schema["properties"]["available_node_types"]["patternProperties"][".*"]["additionalProperties"] = False
    return schema


def _aws_machine(machine: Any) -> Iterator[str]:
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    report = ParamValidator().validate({**machine, "MinCount": 1, "MaxCount": 1}, shape)
    if report.has_errors():
        yield report.generate_report()


def _gcp_machine(machine: Any) -> Iterator[str]:
    schemas = _gcp_schemas()
    registry = referencing.Registry().with_resources(
        (name, referencing.jsonschema.DRAFT202012.create_resource(schema)) for name, schema in schemas.items()
    )
    validator = jsonschema.Draft202012Validator({"$ref": "Instance"}, registry=registry)
    yield from (error.message for error in validator.iter_errors(machine))


@cache
def _gcp_schemas() -> dict[str, Any]:
    path = importlib.resources.files("googleapiclient.discovery_cache").joinpath(
        "documents", "compute.v1.json"
    )
    schemas: dict[str, Any] = json.loads(path.read_text())["schemas"]
    for schema in _objects(schemas):
        if "properties" in schema:
            schema["additionalProperties"] = False
        if schema.get("format") in ("int64", "uint64"):  # as text or as a number
            schema["type"] = ["string", "integer"]
    return {name: {key: value for key, value in s.items() if key != "id"} for name, s in schemas.items()}


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _objects(value)
