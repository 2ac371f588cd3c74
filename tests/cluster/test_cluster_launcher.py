"""The cluster launcher's files for AWS and GCP: valid to the last field, closed to the world, scaling from none."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

from support.click_commands import parse_click
from support.cluster_files import CLUSTER, LAUNCHERS, images, program, project
from support.command_lines import split, understand
from support.launcher_schemas import mistakes

CLOUDS = list(LAUNCHERS)
ACCOUNT_AWS = CLUSTER / "launcher" / "aws-account.yaml"
ACCOUNT_GCP = CLUSTER / "launcher" / "gcp-account.sh"


@pytest.fixture
def config(cloud: str) -> Any:
    return filled(cloud)


def filled(cloud: str, group: str = "sg-1") -> Any:
    """Return the launcher's file with the names that a user puts in."""
    text = LAUNCHERS[cloud].read_text().replace("SECURITY_GROUP", group).replace("ACCOUNT", "123456789012")
    return yaml.safe_load(text.replace("PROJECT", "my-project"))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_field_is_known(cloud: str, config: Any) -> None:
    assert mistakes(cloud, config) == []


@pytest.mark.parametrize(
    ("cloud", "path", "value"),
    [
        ("aws", ("idle_timeout_minute",), 5),
        ("aws", ("idle_timeout_minutes",), "5"),
        ("aws", ("provider", "use_internal_ip"), True),
        ("aws", ("docker", "run_option"), []),
        ("aws", ("auth", "ssh_proxy"), "nc"),
        ("aws", ("available_node_types", "parser", "max_worker"), 2),
        ("aws", ("available_node_types", "parser", "resources", "CPU"), "4"),
        ("aws", ("available_node_types", "parser", "node_config", "InstanceTyp"), "c7i.large"),
        (
            "aws",
            ("available_node_types", "parser", "node_config", "MetadataOptions"),
            {"HttpToken": "required"},
        ),
        ("aws", ("available_node_types", "trainer", "docker", "image"), "sclip"),
        ("gcp", ("provider", "zone"), "us-central1-a"),
        ("gcp", ("available_node_types", "parser", "node_config", "machine_type"), "n2-highcpu-32"),
        ("gcp", ("available_node_types", "parser", "node_config", "scheduling"), [{"preemptible": True}]),
        (
            "gcp",
            ("available_node_types", "parser", "node_config", "scheduling"),
            {"provisioningModel": "CHEAP"},
        ),
        (
            "gcp",
            ("available_node_types", "head", "node_config", "disks"),
            [{"initializeParams": {"size": 1}}],
        ),
    ],
)
def test_a_wrong_field_is_found(cloud: str, config: Any, path: tuple[str, ...], value: Any) -> None:
    config = copy.deepcopy(config)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert mistakes(cloud, json.loads(json.dumps(config))) != []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_takes_the_file_as_it_does_before_it_starts_anything(cloud: str, config: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["setup_commands"] == []
    assert prepared["head_setup_commands"] == [], "Ray's own would install clients that the image has"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_all_but_a_head_without_work_comes_from_none_and_parsers_are_spot(cloud: str, config: Any) -> None:
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    workers = {name: node for name, node in types.items() if node is not head}
    assert set(workers) == {"parser", "trainer"}
    assert {node["min_workers"] for node in workers.values()} == {0}
    assert config["max_workers"] == sum(node["max_workers"] for node in workers.values())
    spot = {
        "aws": lambda machine: machine.get("InstanceMarketOptions") == {"MarketType": "spot"},
        "gcp": lambda machine: machine.get("scheduling", {}).get("provisioningModel") == "SPOT",
    }[cloud]
    assert {name: spot(node["node_config"]) for name, node in types.items()} == {
        "head": False,
        "parser": True,
        "trainer": False,
    }


@pytest.mark.parametrize("cloud", CLOUDS)
def test_trainers_run_the_image_with_cuda_and_the_others_the_one_without(cloud: str, config: Any) -> None:
    (own,) = {image.rpartition("sclip:")[0] for image in images(json.dumps(config))}
    image = f"{own}sclip:{project()['version']}"
    assert config["docker"]["image"] == f"{image}-cpu"
    of_type = {name: node.get("docker") for name, node in config["available_node_types"].items()}
    assert of_type == {"head": None, "parser": None, "trainer": {"worker_image": f"{image}-gpu"}}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_starts_with_options_that_it_has_and_a_dashboard_for_the_head_alone(
    cloud: str, config: Any
) -> None:
    started = {
        kind: [
            parse_click(command) for line in config[f"{kind}_start_ray_commands"] for command in split(line)
        ]
        for kind in ("head", "worker")
    }
    head, worker = started["head"][-1], started["worker"][-1]
    assert head["head"]
    assert head["dashboard_host"] == "127.0.0.1"
    assert head["autoscaling_config"].endswith("/ray_bootstrap_config.yaml")
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    assert worker["object_manager_port"] == head["object_manager_port"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_token_reaches_every_node_as_a_file_that_the_containers_user_may_read(
    cloud: str, config: Any
) -> None:
    from ray.autoscaler.sdk import get_docker_host_mount_location

    options = [word for option in config["docker"]["run_options"] for word in option.split()]
    environment = dict(word.split("=", 1) for at, word in enumerate(options) if options[at - 1] == "-e")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert config["file_mounts"] == {environment["RAY_AUTH_TOKEN_PATH"]: "~/.ray/auth_token"}
    on_host = get_docker_host_mount_location(config["cluster_name"]) + environment["RAY_AUTH_TOKEN_PATH"]
    assert f"chmod 644 {on_host}" in config["initialization_commands"]
    assert {"--cap-drop ALL", "--security-opt no-new-privileges"} < set(config["docker"]["run_options"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_node_is_reached_by_name_through_the_clouds_own_door(cloud: str, config: Any) -> None:
    assert config["provider"]["use_internal_ips"]
    assert config["auth"]["ssh_proxy_use_node_id"]
    for line in [config["auth"]["ssh_proxy_command"], *config["initialization_commands"][1:]]:
        for command in split(line):
            understand(command)


def test_no_machine_on_gcp_has_an_outer_address_and_none_may_come_in_but_through_the_proxy() -> None:
    for node in filled("gcp")["available_node_types"].values():
        assert all("accessConfigs" not in net for net in node["node_config"]["networkInterfaces"])
    ranges = re.findall(r"--source-ranges=(\S+)", ACCOUNT_GCP.read_text())
    own, proxy = "10.10.0.0/20", "35.235.240.0/20"
    assert ranges == [own, proxy]
    assert f"--range={own}" in ACCOUNT_GCP.read_text()


@mock_aws
def test_ray_opens_no_port_on_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key that it makes there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    ec2 = boto3.client("ec2", region_name=filled("aws")["provider"]["region"])
    nodes = ec2.create_security_group(
        GroupName="sclip", Description="-", VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    )
    before = ec2.describe_security_groups()["SecurityGroups"]
    bootstrapped = bootstrap_aws(prepare_config(filled("aws", nodes["GroupId"])))
    assert ec2.describe_security_groups()["SecurityGroups"] == before
    for node in bootstrapped["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == [nodes["GroupId"]]
        assert node["node_config"]["SubnetIds"]

    opened = filled("aws")
    for node in opened["available_node_types"].values():
        node["node_config"].pop("SecurityGroupIds", None)
    bootstrap_aws(prepare_config(opened))
    assert "0.0.0.0/0" in json.dumps(
        [g["IpPermissions"] for g in ec2.describe_security_groups()["SecurityGroups"]]
    )


def template() -> Any:
    class Loader(yaml.SafeLoader):
        """CloudFormation's tags (!Ref, !Sub, !GetAtt) as their text."""

    Loader.add_multi_constructor("!", lambda loader, tag, node: f"{tag} {node.value}")
    return yaml.load(ACCOUNT_AWS.read_text(), Loader)  # noqa: S506


def lint(path: Path) -> str:
    return subprocess.run([program("cfn-lint"), str(path)], capture_output=True, text=True).stdout


def test_the_stack_for_an_account_is_valid_and_a_wrong_field_of_it_is_found(tmp_path: Path) -> None:
    assert lint(ACCOUNT_AWS) == ""
    planted = tmp_path / "planted.yaml"
    planted.write_text(ACCOUNT_AWS.read_text().replace("ScanOnPush:", "ScanOnPull:"))
    assert "'ScanOnPull' was unexpected" in lint(planted)


def test_the_stack_makes_what_the_launcher_names_and_lets_nobody_else_in() -> None:
    resources = template()["Resources"]
    of_kind: dict[str, list[Any]] = {}
    for resource in resources.values():
        of_kind.setdefault(resource["Type"].rpartition("::")[2], []).append(resource["Properties"])
    used = {
        n["node_config"]["IamInstanceProfile"]["Name"] for n in filled("aws")["available_node_types"].values()
    }
    assert {profile["InstanceProfileName"] for profile in of_kind["InstanceProfile"]} == used
    (rule,) = of_kind["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == rule["GroupId"]
    assert not any("SecurityGroupIngress" in group for group in of_kind["SecurityGroup"])
    assert f"/{of_kind['Repository'][0]['RepositoryName']}:" in filled("aws")["docker"]["image"]
    assert all(of_kind["Bucket"][0]["PublicAccessBlockConfiguration"].values())
    (autoscaler,) = [policy for role in of_kind["Role"] for policy in role.get("Policies", ())]
    condition = autoscaler["PolicyDocument"]["Statement"][1]["Condition"]["StringEquals"]
    assert condition == {"aws:ResourceTag/ray-cluster-name": filled("aws")["cluster_name"]}
