"""Read each node's versions, clock, memory, disks and limits, and judge whether they suffice and agree."""

from __future__ import annotations

import hashlib
import platform
import resource
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sclip.launch import ray_internals
from sclip.launch.doctor.finding import CheckFinding, Status
from sclip.launch.doctor.probes import Answer, ClusterNode

PACKAGES = ("ray", "torch", "open_clip_torch", "spacy")
_GB = 1e9
_MOST_SKEW_S = 2.0
"""Ray, S3's signatures and MLflow tolerate more than this skew, but more means that no service sets the clock."""
_FULL, _NEARLY_FULL = 0.95, 0.85
"""Used shares of a disk: at `_FULL`, Ray stops writing objects to it; at `_NEARLY_FULL`, the check warns."""
_FILES, _FEWEST_FILES = 65536, 4096
"""Limits of open files: Ray recommends `_FILES`; below `_FEWEST_FILES`, a few hundred actors begin to fail."""


def look_versions(spacy_model: str) -> dict[str, str]:
    """Return this node's versions of everything that a run depends on; for sclip, a digest of its source files."""
    from sclip.scenegraph import ParserError, parser_version

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    try:
        versions["parser"] = parser_version(spacy_model)
    except ParserError:
        versions["parser"] = "missing"
    package, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return versions | {"sclip": digest.hexdigest()[:12]}


def judge_versions(answers: Mapping[ClusterNode, Answer]) -> list[CheckFinding]:
    """Compare every node's versions with the most common ones."""
    known = {node: answer.value for node, answer in answers.items() if not answer.failure}
    names = list(dict.fromkeys(name for has in known.values() for name in has))
    usual = {name: Counter(has[name] for has in known.values()).most_common(1)[0][0] for name in names}
    findings = []
    for node, has in known.items():
        other = [f"{name} {has[name]}, elsewhere {usual[name]}" for name in names if has[name] != usual[name]]
        missing = [name for name in names if has[name] == "missing"]
        if other or missing:
            text = "; ".join(other) or f"missing: {', '.join(missing)}"
            remedy = "give every node the same image, or pip install --constraint constraints.txt there"
            findings.append(CheckFinding("versions", node.name, "fail", text, remedy))
    if known and not findings:
        text = ", ".join(f"{name} {version}" for name, version in usual.items())
        findings.append(CheckFinding("versions", f"all {len(known)} nodes", "ok", text))
    return findings


def look_machine(storage: str) -> dict[str, Any]:
    """Return this node's shared memory, disks and open-file limits; `storage` is run.storage, or "" if it is a URI."""
    folders = filter(None, (ray_internals.session_folder(), storage))
    return {
        "shm": shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
        "disks": {folder: _disk(folder) for folder in folders},
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }


def _disk(path: str) -> tuple[int, int]:
    """Return the free and total bytes of the disk of a path, or of its nearest existing parent if it is missing."""
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def judge_shm(answers: Mapping[ClusterNode, Answer]) -> list[CheckFinding]:
    """Judge shared memory: if /dev/shm is too small, Ray puts the object store on a slow disk."""
    findings = []
    for node, answer in answers.items():
        if answer.failure:
            continue
        shm_bytes, needed_bytes = answer.value["shm"], node.object_store_bytes
        text = f"/dev/shm {shm_bytes / _GB:.1f} GB, object store {needed_bytes / _GB:.1f} GB"
        remedy = "mount a larger one: an emptyDir with medium Memory at /dev/shm, or docker run --shm-size"
        enough = shm_bytes >= needed_bytes
        findings.append(
            CheckFinding(
                "shared memory", node.name, "ok" if enough else "warn", text, "" if enough else remedy
            )
        )
    return findings


def judge_disk(answers: Mapping[ClusterNode, Answer]) -> list[CheckFinding]:
    """Return a finding for each disk, by its used share."""
    findings = []
    for node, answer in answers.items():
        for path, (free, total) in () if answer.failure else answer.value["disks"].items():
            used = 1 - free / total
            status: Status = "fail" if used >= _FULL else "warn" if used >= _NEARLY_FULL else "ok"
            text = f"{free / _GB:,.1f} of {total / _GB:,.1f} GB free at {path}"
            remedy = "" if status == "ok" else f"make room there: at {_FULL:.0%} Ray stops writing to it"
            findings.append(CheckFinding("disk", node.name, status, text, remedy))
    return findings


def judge_files(answers: Mapping[ClusterNode, Answer]) -> list[CheckFinding]:
    """Judge the limits of open files. A process may raise its soft limit up to the hard limit, as Ray does."""
    findings = []
    for node, answer in answers.items():
        if answer.failure:
            continue
        soft, hard = (_FILES if limit == resource.RLIM_INFINITY else limit for limit in answer.value["files"])
        status: Status = "fail" if hard < _FEWEST_FILES else "warn" if soft < _FEWEST_FILES else "ok"
        remedy = (
            ""
            if status == "ok"
            else f"ulimit -n {_FILES} before ray start, or docker run --ulimit nofile={_FILES}"
        )
        findings.append(CheckFinding("open files", node.name, status, f"{soft:,} (hard: {hard:,})", remedy))
    return findings


def look_clock() -> float:
    """Return this node's time, in seconds since 1970."""
    return time.time()


def judge_clock(rounds: Mapping[ClusterNode, Sequence[tuple[float, float, float]]]) -> list[CheckFinding]:
    """Compare each node's clock with the driver's. Use the answer with the shortest round trip, the most precise one.

    `rounds` holds for each answer: the driver's time before the call, the node's time, the driver's time after it.
    """
    findings = []
    for node, times in rounds.items():
        if not times:
            findings.append(
                CheckFinding("clock", node.name, "fail", "no answer", "look at this node's load and network")
            )
            continue
        before, node_time, after = min(times, key=lambda one: one[2] - one[0])
        skew, uncertain = node_time - (before + after) / 2, (after - before) / 2
        bad = abs(skew) - uncertain > _MOST_SKEW_S
        text = f"{1000 * skew:+,.0f} ms from the driver's clock, measured to {1000 * uncertain:,.0f} ms"
        remedy = "set the clock by NTP (chronyd) on that node" if bad else ""
        findings.append(CheckFinding("clock", node.name, "fail" if bad else "ok", text, remedy))
    return findings


def check_authentication(token: bool, addresses: Sequence[str]) -> CheckFinding:
    """Judge whether anyone who can reach the head's port can run code on the cluster."""
    if token:
        return CheckFinding("authentication", "cluster", "ok", "Ray requires a token")
    if all(address.startswith("127.") for address in addresses):
        return CheckFinding("authentication", "cluster", "ok", "off, but only on loopback")
    text = "off: anyone who can reach the head can run code on it"
    remedy = "start Ray with RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on every node"
    return CheckFinding("authentication", "cluster", "fail", text, remedy)
