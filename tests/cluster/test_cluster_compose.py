"""compose.yaml, the cluster on one machine: closed to other machines, without secrets in it, with complete references.

`make check` checks its fields against the specification of Compose.
"""

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
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy
import yaml
from moto.server import ThreadedMotoServer

from support.click_commands import parse_click
from support.cluster_files import CLUSTER, COMPOSE, images, project
from support.paths import ROOT

ONCE = "service_completed_successfully"
CONTENT = yaml.safe_load(COMPOSE.read_text())
SERVICES = CONTENT["services"]


def problems(compose: Any) -> Iterator[str]:
    """Yield names that a service uses and the file lacks; otherwise only `docker compose config` finds them."""
    for name, service in compose["services"].items():
        for kind in ("networks", "secrets", "configs", "volumes"):
            for entry in service.get(kind, ()):
                used = entry.get("source") if isinstance(entry, dict) else entry.partition(":")[0]
                if used and used not in compose[kind]:
                    yield f"{name}: no {used} in {kind}"
        for other, how in service.get("depends_on", {}).items():
            ends = compose["services"].get(other, {}).get("healthcheck") == {"disable": True}
            if other not in compose["services"] or how["condition"] != (ONCE if ends else "service_healthy"):
                yield f"{name}: waits for {other} in vain, or not for its health"


def test_everything_that_a_service_names_exists() -> None:
    assert list(problems(CONTENT)) == []


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("parser", "secrets", ["ray_tokens"]),
        ("parser", "depends_on", {"ray": {"condition": "service_healthy"}}),
        ("ray-head", "depends_on", {"mlflow": {"condition": ONCE}}),
    ],
)
def test_a_name_without_a_target_is_found(service: str, key: str, value: Any) -> None:
    compose = copy.deepcopy(CONTENT)
    compose["services"][service][key] = value
    assert len(list(problems(compose))) == 1


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_is_pinned_unprivileged_watched_and_closed_to_other_machines(service: Any) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "network_mode" not in service
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    ours = bool(images(service["image"]))
    assert not ours or (service["read_only"] and service["cap_drop"] == ["ALL"])
    assert ours or service["healthcheck"]["test"], "the image's own check, or one here"
    for name, value in service.get("environment", {}).items():
        secret = re.search("PASSWORD|SECRET|TOKEN|KEY|CREDENTIALS", name)
        assert not secret or value.startswith("/run/secrets/"), name
    assert not re.search(r"://[^/\s]*:[^/\s]*@", json.dumps(service)), "a password in a URI"


def test_every_secret_is_created_once_and_only_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    def made() -> dict[str, str]:
        subprocess.run([str(CLUSTER / "secrets.sh"), str(folder)], check=True)
        return {path.name: path.read_text() for path in folder.iterdir()}

    first = made()
    assert first == made(), "a second call would lock MLflow out of its database"
    assert {secret["file"] for secret in CONTENT["secrets"].values()} == {f"secrets/{name}" for name in first}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "cluster/secrets/" in (ROOT / ".gitignore").read_text().split()
    identity = json.loads(first["s3_identities"])["identities"][0]["credentials"][0]
    ini = configparser.ConfigParser()
    ini.read_string(first["s3_credentials"] + first["mlflow_credentials"])
    assert ini["default"]["aws_secret_access_key"] == identity["secretKey"]
    assert ini["mlflow"]["mlflow_tracking_password"] == first["mlflow_password"]
    own = [first[name] for name in ("ray_token", "postgres_password", "mlflow_password", "mlflow_key")]
    assert len({*own, identity["secretKey"]}) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in own)


def test_ray_starts_with_a_token_and_a_head_without_work() -> None:
    started = {}
    for name, service in SERVICES.items():
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


def mlflow_options() -> dict[str, Any]:
    script = SERVICES["mlflow"]["command"][-1]
    return parse_click(shlex.split(script.partition("exec ")[2].replace("\\\n", " ")))


def test_mlflow_requires_a_login_and_has_a_driver_for_its_database() -> None:
    options, postgres = mlflow_options(), SERVICES["postgres"]
    assert options["app_name"] == "basic-auth"
    assert set(options["allowed_hosts"].split(",")) == {"mlflow:5000", "localhost:5000", "127.0.0.1:5000"}
    ini = configparser.ConfigParser()
    ini.read(CLUSTER / CONTENT["configs"]["mlflow_auth"]["file"])
    assert ini["mlflow"]["database_uri"] == options["backend_store_uri"]
    driver = sqlalchemy.create_engine(options["backend_store_uri"]).dialect.driver
    assert any(line.startswith(driver) for line in project()["optional-dependencies"]["cluster"])
    assert f"mlflow@postgres/{postgres['environment']['POSTGRES_DB']}" in options["backend_store_uri"]
    assert postgres["networks"] == ["database"]
    assert CONTENT["networks"]["database"] == {"internal": True}


def test_the_buckets_can_be_created_repeatedly(tmp_path: Path) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        store = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        lines = ["[default]", *(f"{name} = {value}" for name, value in keys.items())]
        (tmp_path / "credentials").write_text("\n".join(lines))
        own = {"AWS_ENDPOINT_URL": store, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
        _, *arguments = SERVICES["buckets"]["command"]
        for _ in range(2):
            environment = os.environ | SERVICES["buckets"]["environment"] | own
            subprocess.run([sys.executable, *arguments], env=environment, check=True)
        client = boto3.client("s3", endpoint_url=store, region_name="us-east-1", **keys)
        assert {bucket["Name"] for bucket in client.list_buckets()["Buckets"]} == {"sclip", "mlflow"}
    finally:
        server.stop()
    assert mlflow_options()["artifacts_destination"] == "s3://mlflow"
