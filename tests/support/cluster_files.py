"""What the cluster's files say of the image: its instructions, its name and the versions that it is built of."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.paths import ROOT

CLUSTER = ROOT / "cluster"
DOCKERFILE = CLUSTER / "Dockerfile"
COMPOSE = CLUSTER / "compose.yaml"
LAUNCHERS = {name: CLUSTER / "launcher" / f"{name}.yaml" for name in ("aws", "gcp")}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    stage: str
    name: str
    text: str


def instructions(dockerfile: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile in their order, each with the stage that it belongs to."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    stage, found = "", []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, text = line.strip().partition(" ")
        if name == "FROM":
            stage = text.rpartition(" AS ")[2]
        if name:
            found.append(Instruction(stage, name, re.sub(r"\s+", " ", text.strip())))
    return found


def of_target(target: str) -> list[Instruction]:
    """Return what one target of our Dockerfile is made of: the stages below it, the lowest first."""
    all_of_them = instructions(DOCKERFILE.read_text())
    below = {i.stage: i.text.partition(" AS ")[0] for i in all_of_them if i.name == "FROM"}
    stages = [target]
    while below[stages[0]] in below:
        stages.insert(0, below[stages[0]])
    return [i for stage in stages for i in all_of_them if i.stage == stage]


def read(path: Path) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text())


@cache
def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


@cache
def pins() -> dict[str, str]:
    """Return the version of each package in constraints.txt, by normalised name."""
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def images(text: str) -> set[str]:
    """Return the tags of our own image that a text names, each as REGISTRY/sclip:TAG."""
    return set(re.findall(r"[\w./-]*\bsclip:[\w.-]+", text))


def program(name: str) -> str:
    """Return the path of a program that stands beside this Python, or else on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name}: not installed; pip install -e '.[dev]'"
    return found
