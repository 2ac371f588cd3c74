"""What the cluster's files say of the image: its instructions, its name and the versions that it is built of."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

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
    lines = [line for line in dockerfile.splitlines() if line and not line.lstrip().startswith("#")]
    stage, every = "", []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            stage = text.rpartition(" AS ")[2]
        every.append(Instruction(stage, name, " ".join(text.split())))
    return every


@cache
def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


@cache
def pins() -> dict[str, str]:
    """Return the version of each package in constraints.txt, by normalised name."""
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def images(text: str) -> set[str]:
    """Return the tags of our own image that a text names, each as REGISTRY/sclip:TAG."""
    return set(re.findall(r"[\w./-]*\bsclip:[\w.-]+", text))
