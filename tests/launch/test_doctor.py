"""The doctor: each check says ok, or what is wrong and what to do. No check waits forever."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from mlflow import MlflowClient
from rich.console import Console

from sclip.config import Config, DataConfig, RunConfig, TrackingConfig
from sclip.launch.doctor import collective, machine, reach
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst
from sclip.launch.doctor.network import MESSAGE_ELEMENTS, Link, judge_network, nccl_network
from sclip.launch.doctor.probes import Answer, ClusterNode
from support.mlflow_stores import empty_store
from support.processes import free_port
from support.tars import pair, tar_bytes

A, B, C = (ClusterNode(name * 8, f"node {name}", 4, 0, 10**9, "10.0.0.1") for name in "abc")
GONE = Answer(failure="ActorDiedError: the node is gone")


def statuses(findings: list[CheckFinding]) -> dict[str, str]:
    return {finding.where: finding.status for finding in findings}


def problem(findings: list[CheckFinding]) -> str:
    """Return the only finding that is not ok; it must say what to do."""
    (finding,) = (finding for finding in findings if finding.status != "ok")
    assert finding.remedy
    return f"{finding.status} {finding.where}: {finding.found}"


SAME = Answer({"python": "3.11.7", "ray": "2.60.0", "sclip": "0123"})


def but(**other: str) -> Answer:
    return Answer(SAME.value | other)


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (but(ray="missing"), "ray missing, elsewhere 2.60.0"),
        (but(sclip="4567", python="3.12.1"), "python 3.12.1, elsewhere 3.11.7; sclip 4567, elsewhere 0123"),
    ],
)
def test_the_node_that_differs_from_the_others_is_named(c: Answer, expected: str) -> None:
    assert problem(machine.judge_versions({A: SAME, B: SAME, C: c})) == f"fail node c: {expected}"


def test_equal_versions_take_one_line_and_a_package_missing_everywhere_fails_everywhere() -> None:
    (finding,) = machine.judge_versions({A: SAME, B: SAME, C: GONE})
    assert (finding.status, finding.where) == ("ok", "all 2 nodes")
    assert finding.found == "python 3.11.7, ray 2.60.0, sclip 0123"
    missing = but(parser="missing")
    assert statuses(machine.judge_versions({A: missing, B: missing})) == {"node a": "fail", "node b": "fail"}
    assert machine.look_versions("no_such_pipeline")["parser"] == "missing"


# Clocks, memory, disks, files


@pytest.mark.parametrize(
    ("times", "status"),
    [
        ([(100.0, 100.001, 100.002)], "ok"),
        ([(100.0, 103.0, 100.002)], "fail"),
        ([(100.0, 105.5, 106.0)], "ok"),  # the answer took 6 s, which may explain the difference
        ([(100.0, 109.0, 106.0), (200.0, 200.001, 200.002)], "ok"),  # the quicker question counts
        ([], "fail"),
    ],
)
def test_a_clock_is_wrong_if_the_duration_of_the_question_does_not_explain_the_difference(
    times: list[tuple[float, float, float]], status: str
) -> None:
    assert statuses(machine.judge_clock({A: times})) == {"node a": status}


ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("judge", "facts", "status"),
    [
        (machine.judge_shm, {"shm": 2 * 10**9}, "ok"),
        (machine.judge_shm, {"shm": 64 * 2**20}, "warn"),  # the object store does not fit into it
        (machine.judge_disk, {"disks": {"/data": (500, 1000)}}, "ok"),
        (machine.judge_disk, {"disks": {"/data": (100, 1000)}}, "warn"),
        (machine.judge_disk, {"disks": {"/data": (40, 1000)}}, "fail"),  # Ray stops writing to it
        (machine.judge_files, {"files": (65536, 65536)}, "ok"),
        (machine.judge_files, {"files": (1024, 65536)}, "warn"),
        (machine.judge_files, {"files": (1024, 1024)}, "fail"),
        (machine.judge_files, {"files": (ENDLESS, ENDLESS)}, "ok"),
    ],
)
def test_a_machine_is_judged_by_its_shared_memory_disks_and_open_files(
    judge: Callable[..., list[CheckFinding]], facts: dict[str, object], status: str
) -> None:
    assert statuses(judge({A: Answer(facts), B: GONE})) == {"node a": status}


def test_a_cluster_beyond_loopback_must_ask_for_a_token() -> None:
    local, beyond = ["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]
    cases = [(True, beyond), (False, local), (False, beyond)]
    assert [machine.check_authentication(*case).status for case in cases] == ["ok", "ok", "fail"]


# Storage and shards

OK = Answer()
Answers = dict[ClusterNode, Answer]


def storage(
    b: Answer = OK, sees: Answers | None = None, removed: Answers | None = None
) -> list[CheckFinding]:
    """Judge a storage that node a can use, and that node b can use as far as its answers say."""
    every = {node: Answer([node.id for node in ((A,) if b.failure else (A, B))]) for node in (A, B)}
    return reach.judge_storage("/mnt", {A: OK, B: b}, every | (sees or {}), {A: OK, B: OK} | (removed or {}))


def shards(b: Answer) -> list[CheckFinding]:
    return reach.judge_shards(9, {A: Answer((1000, 10**8, 1.0)), B: b})


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        (storage(Answer(failure="PermissionError: /mnt")), "fail node b: cannot write: PermissionError: /mnt"),
        (storage(sees={B: Answer([B.id])}), "fail node b: does not see the file that node a wrote"),
        (storage(sees={B: GONE}), f"fail node b: cannot list: {GONE.failure}"),
        (storage(removed={B: Answer(failure="OSError: no")}), "fail node b: cannot remove: OSError: no"),
        (shards(Answer(failure="ShardError: /0.tar: no such file")), "fail node b: ShardError: /0.tar: no such file"),
        (shards(Answer((0, 0, 0.1))), "fail node b: no sample in the first shards"),
        (shards(Answer((100, 10**7, 5.0))), "warn node b: 20 samples/s, 2 MB/s of 9 shards"),
    ],
)  # fmt: skip
def test_the_node_that_cannot_use_the_storage_or_the_shards_is_named(
    findings: list[CheckFinding], expected: str
) -> None:
    assert problem(findings) == expected


def test_storage_and_shards_that_all_nodes_share_are_ok_and_no_secret_is_shown() -> None:
    assert statuses(storage()) == {"node a": "ok", "node b": "ok"}
    assert storage()[0].found == "writes, reads, removes, sees 1 others"
    findings = shards(Answer((8, 1000, 0.02)))  # a read of a moment is too short to be called slow
    assert [(finding.status, finding.found) for finding in findings] == [
        ("ok", "1,000 samples/s, 100 MB/s of 9 shards"), ("ok", "400 samples/s, 0 MB/s of 9 shards"),
    ]  # fmt: skip
    (finding,) = reach.judge_storage("s3://key:secret@bucket/runs", {A: Answer(failure="x")}, {}, {})
    assert "secret" not in finding.remedy
    assert "bucket/runs" in finding.remedy


def test_only_the_first_samples_of_many_shards_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_SAMPLES", 5)
    paths = [tmp_path / "0.tar", tmp_path / "1.tar"]
    for path in paths:
        path.write_bytes(tar_bytes([m for n in range(4) for m in pair(str(n))]))
    assert reach.read_some([str(path) for path in paths], DataConfig())[:2] == (5, 5 * len("image of 0"))


@pytest.mark.parametrize(
    ("shards", "status", "expected"),
    [((), "ok", "scenes are generated"), (("/nowhere/*.tar",), "fail", "no such shard")],
)
def test_generated_scenes_and_absent_shards_are_checked_without_a_node(
    shards: tuple[str, ...], status: str, expected: str
) -> None:
    (finding,) = reach.check_shards(object(), Config(data=DataConfig(shards=shards)))  # type: ignore[arg-type]
    assert finding.status == status
    assert expected in finding.found


# MLflow


def test_a_run_is_written_into_the_store_and_removed_again(tmp_path: Path) -> None:
    uri = empty_store(tmp_path)
    config = Config(run=RunConfig(storage=str(tmp_path)), tracking=TrackingConfig(uri=uri))
    finding = reach.check_mlflow(config, 120)
    assert (finding.status, finding.found) == ("ok", f"{uri}: a run was written and removed")
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'sclip'")
    assert client.search_runs([experiment.experiment_id]) == []


def test_a_server_that_does_not_answer_or_hangs_fails_in_time_with_its_address_and_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port()}"
    config = Config(
        run=RunConfig(storage=str(tmp_path)), tracking=TrackingConfig(uri=f"http://me:secret@{address}")
    )
    finding = reach.check_mlflow(config, 120)
    assert finding.status == "fail"
    assert address in finding.found
    assert "secret" not in finding.found
    reader, writer = os.pipe()
    # Hangs until the test writes a byte.
    monkeypatch.setattr(reach, "try_store", lambda _: os.read(reader, 1))
    finding = reach.check_mlflow(config, 0.05)
    os.write(writer, b"x")
    assert (finding.status, finding.found) == ("fail", "no answer in 0.05 s")


# Collectives, and the report


@pytest.mark.parametrize(("gpus", "check"), [(True, "nccl"), (False, "gloo")])
def test_an_all_reduce_reports_the_slowest_rate_and_names_each_node_with_a_failed_rank_once(
    gpus: bool, check: str
) -> None:
    rates = {0: Answer(2.0), 1: Answer(3.0), 2: Answer(1.5)}
    (finding,) = collective.judge_collective([A, A, B], rates, gpus)
    assert (finding.check, finding.status) == (check, "ok")
    assert "all-reduce over" in finding.found
    assert finding.found.endswith(", 1.50 GB/s")
    failed = {1: Answer(failure="no answer in 30 s"), 2: Answer(failure="RuntimeError: nccl")}
    (finding,) = collective.judge_collective([A, B, B], rates | failed, gpus)
    assert (finding.check, finding.where, finding.status) == (check, "node b", "fail")
    assert finding.found == "no answer in 30 s"


def link(gb_s: float, gpu: str = "NVIDIA L40S", **facts: Any) -> Link:
    """Return the facts of a rank of eight that measures a bus bandwidth."""
    return Link(2 * 7 / 8 * 4 * MESSAGE_ELEMENTS / 1e9 / gb_s, gpu, **facts)


@pytest.mark.parametrize(
    ("measured", "status", "expected", "remedy"),
    [
        (link(0.4, gpu=""), "ok", "0.40 GB/s between 2 nodes, gloo over TCP", ""),
        (link(9.0, network="AWS Libfabric"), "ok", "9.00 GB/s between 2 nodes, NCCL over AWS Libfabric", ""),
        (link(7.0, network="Socket"), "ok", "NCCL over TCP", ""),  # as fast as this machine's network allows
        (link(0.1, gpu="A GPU of tomorrow"), "ok", "NCCL over an unnamed network", ""),
        (link(2.0, network="Socket"), "warn", "; nodes with 4 NVIDIA L40S usually reach 6.0 or more", "no RDMA device"),
        (link(2.0, network="Socket", rdma=True, locked_bytes=2**23), "warn", "NCCL over TCP", "only 8 MB"),
        (link(2.0, network="Socket", rdma=True), "warn", "NCCL over TCP", "no plugin"),
        (link(2.0, network="IB", rdma=True), "warn", "NCCL over IB", "placement group"),
        (link(20.0, gpu="NVIDIA H100 80GB HBM3", network="IB"), "warn", "24.0 or more", "placement group"),
    ],
)  # fmt: skip
def test_a_slow_network_of_gpus_is_a_warning_that_names_the_cause(
    measured: Link, status: str, expected: str, remedy: str
) -> None:
    faster = dataclasses.replace(measured, seconds=measured.seconds / 2)  # the slowest rank counts
    answers = {rank: Answer(measured if rank == 5 else faster) for rank in range(8)}
    finding = judge_network([*4 * [A], *4 * [B]], answers)
    assert finding.status == status
    assert expected in finding.found
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (status != "ok")


def test_one_node_has_no_network_to_measure_and_a_lost_measurement_is_no_failure() -> None:
    assert judge_network([A, A], {}).found == "all ranks are on one node: nothing to measure"
    lost = judge_network([A, B], {0: Answer(link(1.0)), 1: GONE})
    assert (lost.status, lost.where, lost.found) == ("warn", "node b", f"not measured: {GONE.failure}")


def test_the_network_is_the_one_that_nccl_names_last() -> None:
    log = """gpu-1:7:9 [0] NCCL INFO NET/IB : No device found.
gpu-1:7:9 [0] NCCL INFO NET/Socket : Using [0]ens5:10.0.0.1<0>
gpu-1:7:9 [0] NCCL INFO Using network {}
gpu-1:7:9 [0] NCCL INFO DMA-BUF is available on GPU device 0"""
    assert [nccl_network(log.format(name)) for name in ("Socket", "AWS Libfabric")] == [
        "Socket",
        "AWS Libfabric",
    ]
    assert nccl_network("gpu-1:7:9 [0] NCCL INFO Bootstrap: Using ens5:10.0.0.1<0>") == ""


def test_a_rank_checks_the_sum_and_then_times_a_larger_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE"):  # restored after the test
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(collective.ray, "get_gpu_ids", list)
    monkeypatch.setattr(collective, "_ELEMENTS", 8)
    monkeypatch.setattr(collective, "MESSAGE_ELEMENTS", 64)
    rank = collective._Rank()
    try:
        assert rank.reduce(("127.0.0.1", free_port()), 0, 1, 30) > 0
        measured = rank.measure()
    finally:
        dist.destroy_process_group()
    assert measured.seconds > 0
    assert (measured.gpu, measured.network) == ("", "")


def test_the_worst_finding_is_the_overall_status_and_many_healthy_nodes_take_one_line() -> None:
    ok, warn = (CheckFinding("disk", "node 7", status, "9 GB free") for status in ("ok", "warn"))  # type: ignore[arg-type]
    fail = CheckFinding("disk", "node 20", "fail", "[full]", "make room")
    assert [worst(findings) for findings in ([], [ok], [ok, warn], [fail, warn, ok])] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]
    written = json.loads(to_json([ok, fail]))
    assert written["status"] == "fail"
    assert written["findings"][1] == vars(fail)
    healthy = [dataclasses.replace(ok, where=f"node {number}") for number in range(20)]
    show([*healthy, *healthy, fail], Console(file=(out := io.StringIO()), width=100))
    lines = [line.split() for line in out.getvalue().splitlines() if "disk" in line]
    assert lines == [
        "ok disk 20 nodes such as 9 GB free".split(), "fail disk node 20 [full]".split(),
        "fail: disk, node 20: make room".split(),
    ]  # fmt: skip
