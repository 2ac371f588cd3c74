"""Every command of the pages about clusters is one that its program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.cluster_files import CLUSTER
from support.command_lines import WrongCommand, blocks, split, understand
from support.paths import ROOT

PAGES = [(CLUSTER / name).read_text() for name in ("README.md", "kuberay/README.md")]
COMMANDS = [command for page in PAGES for block in blocks(page) for command in split(block)]
ROOMS = sorted((ROOT / "sclip").glob("*/README.md"))
OWN = [
    command
    for page in (ROOT / "README.md", *ROOMS)
    for block in blocks(page.read_text())
    for command in split(block)
]


@pytest.mark.parametrize(
    "command", COMMANDS + [words for words in OWN if words[0] == "sclip"], ids=shlex.join
)
def test_a_command_of_the_page_is_understood(command: list[str]) -> None:
    understand(command)


@pytest.mark.parametrize("page", [ROOT / "README.md", *ROOMS], ids=lambda page: page.parent.name)
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
    ("script", "commands"),
    [
        ("a b | c 'd e' > f  # g", [["a", "b"], ["c", "d e"]]),
        ('x=$(a --b "c d")\ny="$x$(e)" f \\\n  g &', [["a", "--b", "c d"], ["e"], ["f", "g"]]),
        ("a && b; c", [["a"], ["b"], ["c"]]),
        ("# only a comment\n", []),
    ],
)
def test_a_script_comes_apart_into_its_commands(script: str, commands: list[list[str]]) -> None:
    assert list(split(script)) == commands


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ray upp cluster.yaml", "No such command 'upp'"),
        ("ray up --yess cluster.yaml", "No such option"),
        ("ray job submit --workdir . -- python jobs/pretrain.py", "No such option"),
        ("ray job submit -- python jobs/pretrain.py run.strage=s3://sclip", "nearest is run.storage"),
        ("ray job submit -- python jobs/pretrane.py", "no jobs/pretrane.py"),
        ("ray job submit -- frobnicate", "no parser"),
        ("sclip audit --no-such-option", "No such option: --no-such-option"),
        ("pip install --konstraint constraints.txt -e .", ": 2"),
        ("sed -e s/NOWHERE/x/ cluster/launcher/aws.yaml", "has no NOWHERE"),
        ("sed -e s/SECURITY/x/ cluster/launcher/none.yaml", "no cluster/launcher/none.yaml"),
        ("sed -e s/ACCOUNT/x/ cluster/launcher/aws.yaml", "leaves a SECURITY_GROUP"),
        ("docker build -f cluster/Dockerfile --target tpu -t x .", "no such target"),
        ("docker build -f cluster/Dockerfile --targets cpu -t x .", "has no --targets"),
        ("docker compose -f cluster/none.yaml up", "no cluster/none.yaml"),
        ("docker swarm init", "no options of docker swarm"),
        ("aws ec2 describe-security-groups --group-name sclip", "has no --group-name"),
        ("aws ec2 describe-security --group-names sclip", "no operation describe-security"),
        ("aws ec3 describe-security-groups", "no service ec3"),
        ("aws cloudformation deploy --stack sclip", "has no --stack"),
        ("gcloud compute start-iap-tunnel head 22 --listen", "has no --listen"),
        ("kubectl aply -k cluster/mlflow", "no command aply"),
        ("kubectl apply -k cluster/none", "no cluster/none"),
        ("kubectl create secret generic x --from-literals=a=b", "has no --from-literals"),
        ("helm install a b --create-namespaces", "has no --create-namespaces"),
        ("cluster/none.sh", "no cluster/none.sh"),
        ("frobnicate", "no parser"),
    ],
)
def test_a_wrong_command_is_refused(line: str, reason: str) -> None:
    with pytest.raises(WrongCommand, match=re.escape(reason)):
        understand(shlex.split(line))
