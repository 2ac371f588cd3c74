"""Run all checks, one after the other, on the nodes of the cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ray

from sclip.config import Config
from sclip.launch import ray_internals
from sclip.launch.doctor import machine, reach
from sclip.launch.doctor.collective import check_collective
from sclip.launch.doctor.finding import CheckFinding
from sclip.launch.doctor.probes import Answer, ClusterNode, NodeProbes, alive

CHECKS = (
    "nodes", "versions", "clock", "shared memory", "disk", "open files", "authentication", "storage", "shards",
    "mlflow", "gloo", "nccl", "network",
)  # fmt: skip
"""Names of the checks in findings. One more, "machine", appears if a node does not report its memory and disks."""
_ROUNDS = 5  # reads of a node's clock; the first ones are slow, because they connect


def examine(config: Config, timeout_s: float, tell: Callable[[str], None]) -> list[CheckFinding]:
    """Return the findings of all checks on the connected cluster.

    Args:
        config: config of the planned run.
        timeout_s: maximum seconds to wait for a node in one check.
        tell: called before each check with its name; checks that run together have one name, such as "machine".
    """
    storage = config.run.storage
    if "://" not in storage:
        storage = str(Path(storage).expanduser().absolute())
    nodes, lost = alive()
    findings = [
        CheckFinding("nodes", name, "warn", reason, "see its log or ray list nodes") for name, reason in lost
    ]
    tell("nodes")
    with NodeProbes(nodes, timeout_s) as probes:
        reached = probes.each(os.getpid)
        findings += judge_nodes(reached)
        probes.nodes = [node for node in nodes if not reached[node].failure]
        tell("versions")
        findings += _answered(
            "versions", answers := probes.each(machine.look_versions, config.data.spacy_model)
        )
        findings += machine.judge_versions(answers)
        tell("clock")
        findings += machine.judge_clock(probes.rounds(machine.look_clock, _ROUNDS))
        tell("machine")
        answers = probes.each(machine.look_machine, "" if "://" in storage else storage)
        findings += _answered("machine", answers)
        for judge in (machine.judge_shm, machine.judge_disk, machine.judge_files):
            findings += judge(answers)
        tell("authentication")
        findings.append(
            machine.check_authentication(ray_internals.is_token_required(), [node.address for node in nodes])
        )
        tell("storage")
        findings += reach.check_storage(probes, storage)
        tell("shards")
        findings += reach.check_shards(probes, config)
        tell("mlflow")
        findings.append(reach.check_mlflow(config, timeout_s))
        tell("all-reduce")
        findings += check_collective(probes.nodes, timeout_s)
    return findings


def judge_nodes(reached: dict[ClusterNode, Answer]) -> list[CheckFinding]:
    """Return a finding for each node that does not answer, and one that sums up the cluster."""
    remedy = "see ray status and the node's raylet.out; the node needs the driver's Python and sclip"
    silent = [
        CheckFinding("nodes", node.name, "fail", answer.failure, remedy)
        for node, answer in reached.items()
        if answer.failure
    ]
    resources = ray.cluster_resources()
    text = f"{len(reached) - len(silent)} of {len(reached)} nodes answer; the cluster has "
    text += f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
    return [*silent, CheckFinding("nodes", "cluster", "ok" if len(silent) < len(reached) else "fail", text)]


def _answered(check: str, answers: dict[ClusterNode, Answer]) -> list[CheckFinding]:
    remedy = "run doctor again; a node that answers slowly here is also slow in a run"
    return [
        CheckFinding(check, node.name, "fail", answer.failure, remedy)
        for node, answer in answers.items()
        if answer.failure
    ]
