"""Every command on the pages about clusters is one that its program accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.cluster_files import CLUSTER
from support.command_lines import WrongCommand, blocks, split, understand
from support.paths import ROOT

PAGES = [(CLUSTER / name).read_text() for name in ("README.md", "kuberay/README.md")]
ROOMS = [ROOT / "README.md", *sorted((ROOT / "sclip").glob("*/README.md"))]


def commands(page: str) -> list[list[str]]:
    return [command for block in blocks(page) for command in split(block)]


COMMANDS = [command for page in PAGES for command in commands(page)]
OWN = [words for page in ROOMS for words in commands(page.read_text()) if words[0] == "sclip"]


@pytest.mark.parametrize("command", COMMANDS + OWN, ids=shlex.join)
def test_a_command_of_the_page_is_understood(command: list[str]) -> None:
    understand(command)


@pytest.mark.parametrize("page", ROOMS, ids=lambda page: page.parent.name)
def test_a_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_block_of_the_page_is_passed_over() -> None:
    for page in PAGES:
        assert page.count("```") == 2 * len(blocks(page)), (
            "a block that is not marked as bash would not be read"
        )
    assert {"ray", "docker", "kubectl", "helm"} < {command[0] for command in COMMANDS}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ray upp cluster.yaml", "No such command 'upp'"),
        ("ray job submit -- python jobs/pretrain.py run.strage=s3://sclip", "nearest is run.storage"),
        ("sclip audit --no-such-option", "No such option: --no-such-option"),
        ("pip install --konstraint constraints.txt -e .", ": 2"),
        ("sed -e s/NOWHERE/x/ cluster/launcher/aws.yaml", "has no NOWHERE"),
        ("docker build -f cluster/Dockerfile --target tpu -t x .", "no such target"),
        ("docker swarm init", "no options of docker swarm"),
        ("aws ec2 describe-security-groups --group-name sclip", "has no --group-name"),
        ("aws cloudformation deploy --stack sclip", "has no --stack"),
        ("kubectl aply -k cluster/mlflow", "no command aply"),
        ("helm install a b --create-namespaces", "has no --create-namespaces"),
        ("frobnicate", "no parser"),
    ],
)
def test_a_wrong_command_is_refused(line: str, reason: str) -> None:
    with pytest.raises(WrongCommand, match=re.escape(reason)):
        understand(shlex.split(line))
