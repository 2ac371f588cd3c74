"""compose.yaml, the cluster on one machine: valid to the last field, closed to others, its secrets elsewhere."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy
from check_jsonschema.builtin_schemas import get_builtin_schema
from moto.server import ThreadedMotoServer

from support.click_commands import parse_click
from support.cluster_files import (
    CLUSTER,
    COMPOSE,
    images,
    program,
    project,
    read,
)
from support.paths import ROOT

ONCE = "service_completed_successfully"


@pytest.fixture
def compose() -> Any:
    return copy.deepcopy(read(COMPOSE))


def mistakes(compose: Any) -> list[str]:
    """Return what is wrong with a compose file: unknown or misplaced keys, then names that nothing stands behind."""
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(compose)] + list(_dangling(compose))


def _dangling(compose: Any) -> Iterator[str]:
    for name, service in compose["services"].items():
        for kind in ("networks", "secrets", "configs"):
            for entry in service.get(kind, ()):
                used = entry["source"] if isinstance(entry, dict) else entry
                if used not in compose.get(kind, {}):
                    yield f"{name}: {kind}: {used} is nowhere"
        for volume in service.get("volumes", ()):
            used = volume.get("source") if isinstance(volume, dict) else volume.partition(":")[0]
            if used and used not in compose.get("volumes", {}):
                yield f"{name}: volumes: {used} is nowhere"
        for other, how in service.get("depends_on", {}).items():
            if other not in compose["services"]:
                yield f"{name}: depends_on: {other} is nowhere"
            elif how["condition"] == ONCE and compose["services"][other].get("restart") == "unless-stopped":
                yield f"{name}: depends_on: {other} never ends"


def test_the_compose_file_is_one(compose: Any) -> None:
    assert mistakes(compose) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "parser", "shm_sized"), "2gb"),
        (("services", "parser", "read_only"), [True]),
        (("services", "s3", "healthcheck", "tests"), ["CMD", "true"]),
        (("networks", "cluster", "internals"), True),
        (("service",), {}),
        (("services", "parser", "secrets"), ["ray_tokens"]),
        (("services", "parser", "networks"), ["clusters"]),
        (("services", "s3", "volumes"), ["s4:/data"]),
        (("services", "parser", "depends_on"), {"ray": {"condition": "service_healthy"}}),
        (("services", "ray-head", "depends_on", "mlflow", "condition"), "service_is_healthy"),
        (("services", "ray-head", "depends_on", "mlflow", "condition"), ONCE),
    ],
)
def test_a_wrong_field_of_the_compose_file_is_found(compose: Any, path: tuple[str, ...], value: Any) -> None:
    place = compose
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert mistakes(compose) != []


def services() -> list[Any]:
    return [pytest.param(service, id=name) for name, service in read(COMPOSE)["services"].items()]


@pytest.mark.parametrize("service", services())
def test_a_service_is_reached_from_this_machine_alone(service: Any) -> None:
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []
    assert "network_mode" not in service


@pytest.mark.parametrize("service", services())
def test_a_service_is_pinned_gains_no_privileges_and_is_waited_for(service: Any) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    ours = bool(images(service["image"]))
    assert not ours or (service["read_only"] and service["cap_drop"] == ["ALL"])
    once = service.get("healthcheck") == {"disable": True}
    assert ours or once or service["healthcheck"]["test"], "the image's own check, or one here"
    for other, how in service.get("depends_on", {}).items():
        ends = read(COMPOSE)["services"][other].get("healthcheck") == {"disable": True}
        assert how["condition"] == (ONCE if ends else "service_healthy")


@pytest.mark.parametrize("service", services())
def test_no_secret_stands_in_the_file(service: Any) -> None:
    for name, value in service.get("environment", {}).items():
        secret = re.search("PASSWORD|SECRET|TOKEN|KEY|CREDENTIALS", name)
        assert not secret or value.startswith("/run/secrets/"), name
    assert not re.search(r"://[^/\s]*:[^/\s]*@", json.dumps(service)), "a password in a URI"


def test_every_secret_is_made_each_once_and_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    def made() -> dict[str, str]:
        subprocess.run([str(CLUSTER / "secrets.sh"), str(folder)], check=True)
        return {path.name: path.read_text() for path in folder.iterdir()}

    first = made()
    assert first == made(), "a second call would lock MLflow out of its database"
    assert {Path(secret["file"]) for secret in read(COMPOSE)["secrets"].values()} == {
        Path("secrets") / name for name in first
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert any(fnmatch("cluster/secrets/", line) for line in (ROOT / ".gitignore").read_text().split())
    identity = json.loads(first["s3_identities"])["identities"][0]["credentials"][0]
    ini = configparser.ConfigParser()
    ini.read_string(first["s3_credentials"])
    assert ini["default"]["aws_secret_access_key"] == identity["secretKey"]
    ini.read_string(first["mlflow_credentials"])
    assert ini["mlflow"]["mlflow_tracking_password"] == first["mlflow_password"]
    own = [first[name] for name in ("ray_token", "postgres_password", "mlflow_password", "mlflow_key")]
    assert len({*own, identity["secretKey"]}) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in own)


def test_a_scripts_linter_has_nothing_to_say() -> None:
    scripts = [str(path) for path in CLUSTER.rglob("*.sh")]
    done = subprocess.run([program("shellcheck"), *scripts], capture_output=True, text=True)
    assert done.stdout == ""


def test_ray_starts_with_a_token_and_a_head_without_work(compose: Any) -> None:
    started = {}
    for name, service in compose["services"].items():
        if str(service.get("command", "")).startswith("ray "):
            command = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", service["command"])
            started[name] = parse_click(shlex.split(command))
            environment = service["environment"]
            assert environment["RAY_AUTH_MODE"] == "token"
            assert Path(environment["RAY_AUTH_TOKEN_PATH"]).name in service["secrets"]
    assert set(started) == {"ray-head", "parser", "trainer"}
    head = started.pop("ray-head")
    assert (head["head"], head["num_cpus"], head["block"]) == (True, 0, True)
    assert {options["address"] for options in started.values()} == {f"ray-head:{head['port']}"}
    assert all(options["num_cpus"] > 0 and options["block"] for options in started.values())


def mlflow_options(compose: Any) -> dict[str, Any]:
    script = compose["services"]["mlflow"]["command"][-1]
    return parse_click(shlex.split(script.partition("exec ")[2].replace("\\\n", " ")))


def test_mlflow_asks_who_it_is_and_has_a_driver_for_its_database(compose: Any) -> None:
    options = mlflow_options(compose)
    assert options["app_name"] == "basic-auth"
    assert {f"{name}:5000" for name in ("mlflow", "localhost", "127.0.0.1")} == {
        *options["allowed_hosts"].split(",")
    }
    ini = configparser.ConfigParser()
    ini.read(CLUSTER / compose["configs"]["mlflow_auth"]["file"])
    assert ini["mlflow"]["database_uri"] == options["backend_store_uri"]
    driver = sqlalchemy.create_engine(options["backend_store_uri"]).dialect.driver
    assert any(line.startswith(driver) for line in project()["optional-dependencies"]["cluster"])
    postgres = compose["services"]["postgres"]
    assert f"mlflow@postgres/{postgres['environment']['POSTGRES_DB']}" in options["backend_store_uri"]
    assert set(postgres["networks"]) == {"database"}
    assert compose["networks"]["database"] == {"internal": True}


def test_the_buckets_are_made_and_made_again(compose: Any, tmp_path: Path) -> None:
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
        environment = compose["services"]["buckets"]["environment"] | {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        }
        python, *arguments = compose["services"]["buckets"]["command"]
        assert python == "python"
        for _ in range(2):
            subprocess.run([sys.executable, *arguments], env=os.environ | environment, check=True)
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        found = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).list_buckets()["Buckets"]
    finally:
        server.stop()
    assert {bucket["Name"] for bucket in found} == {"sclip", "mlflow"}
    assert mlflow_options(compose)["artifacts_destination"] == "s3://mlflow"
