"""Read from the cluster's files how the image is built: its instructions, its tags and pinned versions."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any

from support.paths import ROOT

CLUSTER = ROOT / "cluster"
DOCKERFILE = CLUSTER / "Dockerfile"
COMPOSE = CLUSTER / "compose.yaml"
LAUNCHERS = {name: CLUSTER / "launcher" / f"{name}.yaml" for name in ("aws", "gcp")}


def instructions() -> list[tuple[str, str, str]]:
    """Return stage, name and text of each instruction of our Dockerfile, with continued lines joined."""
    lines = [
        line for line in DOCKERFILE.read_text().splitlines() if line and not line.lstrip().startswith("#")
    ]
    stage, every = "", []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.partition(" ")
        stage = text.rpartition(" AS ")[2] if name == "FROM" else stage
        every.append((stage, name, " ".join(text.split())))
    return every


@cache
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


@cache
def pins() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def images(text: str) -> set[str]:
    """Return all tags of our own image in a text, each as REGISTRY/sclip:TAG."""
    return set(re.findall(r"[\w./-]*\bsclip:[\w.-]+", text))
