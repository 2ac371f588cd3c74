"""The cluster launcher's files for AWS and GCP: every field valid, closed to outsiders, scaling from zero nodes.

`make check` runs cfn-lint on the stack of aws-account.yaml.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.sdk import get_docker_host_mount_location

from support.click_commands import parse_click
from support.cluster_files import CLUSTER, LAUNCHERS, images, project
from support.command_lines import split, understand
from support.launcher_schemas import mistakes

every_cloud = pytest.mark.parametrize("cloud", LAUNCHERS)


def filled(cloud: str, group: str = "sg-1", subnet: str = "subnet-1") -> Any:
    """Return the launcher's file with its placeholders replaced, as a user does."""
    text = LAUNCHERS[cloud].read_text().replace("SECURITY_GROUP", group).replace("ACCOUNT", "123456789012")
    return yaml.safe_load(text.replace("SUBNET", subnet).replace("PROJECT", "my-project"))


@every_cloud
def test_every_field_is_known_to_ray_and_to_the_cloud(cloud: str) -> None:
    assert mistakes(cloud, filled(cloud)) == []
    prepared = prepare_config(filled(cloud))
    validate_config(prepared)
    assert prepared["setup_commands"] == []
    assert prepared["head_setup_commands"] == [], "Ray's own would install clients that the image has"


PARSER = "available_node_types.parser"


@pytest.mark.parametrize(
    ("cloud", "path", "value"),
    [
        ("aws", "idle_timeout_minute", 5),
        ("aws", "provider.use_internal_ip", True),
        ("aws", f"{PARSER}.resources.CPU", "4"),
        ("aws", f"{PARSER}.node_config.InstanceTyp", "c7i.large"),
        ("aws", "available_node_types.trainer.docker.image", "sclip"),
        ("gcp", f"{PARSER}.node_config.machine_type", "n2-highcpu-32"),
        ("gcp", f"{PARSER}.node_config.scheduling", {"provisioningModel": "CHEAP"}),
    ],
)
def test_a_wrong_field_is_found(cloud: str, path: str, value: Any) -> None:
    config = parent = json.loads(json.dumps(filled(cloud)))  # copied, since YAML anchors share content
    *way, last = path.split(".")
    for key in way:
        parent = parent[key]
    parent[last] = value
    assert mistakes(cloud, config) != []


@every_cloud
def test_workers_scale_from_zero_beside_an_idle_head_parsers_are_spot_and_trainers_have_cuda(
    cloud: str,
) -> None:
    config = filled(cloud)
    types = config["available_node_types"]
    assert (list(types), config["head_node_type"]) == (["head", "parser", "trainer"], "head")
    head, parser, trainer = types.values()
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)
    assert parser["min_workers"] == trainer["min_workers"] == 0
    assert config["max_workers"] == parser["max_workers"] + trainer["max_workers"]
    key, word = {"aws": ("InstanceMarketOptions", "spot"), "gcp": ("scheduling", "SPOT")}[cloud]
    assert word in parser["node_config"][key].values()
    assert all(word not in node["node_config"].get(key, {}).values() for node in (head, trainer))
    (own,) = {image.rpartition("sclip:")[0] for image in images(json.dumps(config))}
    image = f"{own}sclip:{project()['version']}"
    assert config["docker"]["image"] == f"{image}-cpu"
    docker_settings = [node.get("docker", {}).get("worker_image") for node in types.values()]
    assert docker_settings == [None, None, {"aws": f"{image}-gpu-efa", "gcp": f"{image}-gpu"}[cloud]]


@every_cloud
def test_ray_starts_with_options_that_it_has_and_a_dashboard_for_the_head_alone(cloud: str) -> None:
    lines = {kind: " && ".join(filled(cloud)[f"{kind}_start_ray_commands"]) for kind in ("head", "worker")}
    head, worker = ([parse_click(command) for command in split(line)][-1] for line in lines.values())
    assert (head["head"], head["dashboard_host"]) == (True, "127.0.0.1")
    assert head["autoscaling_config"].endswith("/ray_bootstrap_config.yaml")
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    assert worker["object_manager_port"] == head["object_manager_port"]


@every_cloud
def test_the_token_reaches_every_node_as_a_file_that_the_containers_user_may_read(cloud: str) -> None:
    config = filled(cloud)
    options = config["docker"]["run_options"]
    environment = dict(option.removeprefix("-e ").split("=", 1) for option in options if option[:3] == "-e ")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert config["file_mounts"] == {environment["RAY_AUTH_TOKEN_PATH"]: "~/.ray/auth_token"}
    on_host = get_docker_host_mount_location(config["cluster_name"]) + environment["RAY_AUTH_TOKEN_PATH"]
    assert f"chmod 644 {on_host}" in config["initialization_commands"]
    assert {"--cap-drop ALL", "--security-opt no-new-privileges"} < set(options)


@every_cloud
def test_a_node_is_reached_by_name_through_the_clouds_own_proxy(cloud: str) -> None:
    config = filled(cloud)
    assert config["provider"]["use_internal_ips"]
    assert config["auth"]["ssh_proxy_use_node_id"]
    for line in [config["auth"]["ssh_proxy_command"], *config["initialization_commands"][1:]]:
        for command in split(line):
            understand(command)


def test_machines_on_gcp_have_no_external_address_and_are_reached_only_through_the_proxy() -> None:
    for node in filled("gcp")["available_node_types"].values():
        assert all("accessConfigs" not in net for net in node["node_config"]["networkInterfaces"])
    script = (CLUSTER / "launcher" / "gcp-account.sh").read_text()
    own, proxy = "10.10.0.0/20", "35.235.240.0/20"
    assert re.findall(r"--source-ranges=(\S+)", script) == [own, proxy]
    assert f"--range={own}" in script


@mock_aws
def test_ray_opens_no_port_on_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray stores the key that it creates there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    ec2 = boto3.client("ec2", region_name=filled("aws")["provider"]["region"])
    network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="sclip", Description="-", VpcId=network)["GroupId"]
    before = ec2.describe_security_groups()["SecurityGroups"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    bootstrapped = bootstrap_aws(prepare_config(filled("aws", group, subnet)))
    assert ec2.describe_security_groups()["SecurityGroups"] == before
    for node in bootstrapped["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == [group]
        assert node["node_config"]["SubnetIds"]
    trainer = bootstrapped["available_node_types"]["trainer"]
    assert trainer["node_config"]["SubnetIds"] == [subnet]


@mock_aws
def test_trainers_on_aws_have_all_efa_interfaces_of_their_type_and_may_use_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    trainer = filled("aws")["available_node_types"]["trainer"]
    machine = trainer["node_config"]
    ec2 = boto3.client("ec2", region_name=filled("aws")["provider"]["region"])
    (kind,) = ec2.describe_instance_types(InstanceTypes=[machine["InstanceType"]])["InstanceTypes"]
    interfaces = [one["InterfaceType"] for one in machine["NetworkInterfaces"]]
    assert interfaces == kind["NetworkInfo"]["EfaInfo"]["MaximumEfaInterfaces"] * ["efa"]
    assert {"--device /dev/infiniband", "--ulimit memlock=-1:-1"} == set(
        trainer["docker"]["worker_run_options"]
    )


def stack() -> dict[str, list[Any]]:
    """Return the properties of the stack's resources, and the default of each parameter, by kind."""

    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's tags (!Ref, !Sub, !GetAtt) as text."""

    Loader.add_multi_constructor("!", lambda loader, tag, node: f"!{tag} {node.value}")
    template = yaml.load((CLUSTER / "launcher" / "aws-account.yaml").read_text(), Loader)  # noqa: S506
    objects: dict[str, list[Any]] = {"Parameter": [one["Default"] for one in template["Parameters"].values()]}
    for resource in template["Resources"].values():
        objects.setdefault(resource["Type"].rpartition("::")[2], []).append(resource["Properties"])
    return objects


def test_the_stack_creates_what_the_launcher_names_and_admits_nobody_else() -> None:
    objects, config = stack(), filled("aws")
    machines = [node["node_config"] for node in config["available_node_types"].values()]
    profiles = {profile["InstanceProfileName"] for profile in objects["InstanceProfile"]}
    assert profiles == {machine["IamInstanceProfile"]["Name"] for machine in machines}
    (rule,) = objects["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == rule["GroupId"]
    assert not any("SecurityGroupIngress" in group for group in objects["SecurityGroup"])
    assert f"/{objects['Repository'][0]['RepositoryName']}:" in config["docker"]["image"]
    assert all(objects["Bucket"][0]["PublicAccessBlockConfiguration"].values())
    (out,) = [rule for rule in objects["SecurityGroupEgress"] if "DestinationSecurityGroupId" in rule]
    assert out["DestinationSecurityGroupId"] == out["GroupId"] == rule["GroupId"], "EFA needs such a rule"
    assert {rule["CidrIp"] for rule in objects["SecurityGroupEgress"] if rule is not out} == {
        "0.0.0.0/1", "128.0.0.0/1",
    }  # fmt: skip
    workers = [config["available_node_types"][name]["node_config"] for name in ("parser", "trainer")]
    assert objects["Parameter"] == [",".join(machine["InstanceType"] for machine in workers)]


def test_the_head_changes_only_machines_of_its_cluster() -> None:
    config, changed = filled("aws"), {}
    (autoscaler,) = [policy for role in stack()["Role"] for policy in role.get("Policies", ())]
    for statement in autoscaler["PolicyDocument"]["Statement"]:
        actions, resources = (
            value if isinstance(value, list) else [value]
            for value in (statement["Action"], statement["Resource"])
        )
        conditions = {
            key: value for kind in statement.get("Condition", {}).values() for key, value in kind.items()
        }
        for action in actions:
            assert resources != ["*"] or conditions or action.startswith("ec2:Describe"), action
            if any(":instance/" in resource for resource in resources):
                changed.setdefault(action.partition(":")[2], []).append(conditions)
    cluster, tag = config["cluster_name"], "ray-cluster-name"
    assert changed == {
        "RunInstances": [
            {
                f"aws:RequestTag/{tag}": cluster, "ec2:InstanceType": "!Ref InstanceTypes",
                "ec2:MetadataHttpTokens": "required",
            }
        ],
        "CreateTags": [{"ec2:CreateAction": "RunInstances"}, {f"aws:ResourceTag/{tag}": cluster}],
        "TerminateInstances": [{f"aws:ResourceTag/{tag}": cluster}],
    }  # fmt: skip
