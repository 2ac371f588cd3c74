"""The doctor: each check says ok where it is, and where it is not what and what to do; none waits for ever."""

from __future__ import annotations

import io
import json
import os
import resource
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sclip.config import Config, DataConfig, RunConfig, TrackingConfig
from sclip.launch.doctor import collective, machine, reach
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst
from sclip.launch.doctor.nodes import Answer, ClusterNode
from support.mlflow_stores import empty_store
from support.processes import free_port
from support.tars import pair, tar_bytes

A, B, C = (ClusterNode(name * 8, f"node {name}", 4, 0, 10**9, "10.0.0.1") for name in "abc")
GONE = Answer(failure="ActorDiedError: the node is gone")


def statuses(findings: list[CheckFinding]) -> dict[str, str]:
    return {finding.where: finding.status for finding in findings}


def told(findings: list[CheckFinding]) -> str:
    """Return the one finding that is not ok, which says what to do."""
    (finding,) = (finding for finding in findings if finding.status != "ok")
    assert finding.remedy
    return f"{finding.status} {finding.where}: {finding.found}"


# Versions

SAME = {"python": "3.11.7", "ray": "2.60.0", "sclip": "0123"}


def test_equal_versions_are_one_line() -> None:
    (finding,) = machine.judge_versions({A: Answer(SAME), B: Answer(SAME), C: GONE})
    assert (finding.status, finding.where) == ("ok", "all 2 nodes")
    assert finding.found == "python 3.11.7, ray 2.60.0, sclip 0123"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"ray": "2.59.0"}, "fail node c: ray 2.59.0, elsewhere 2.60.0"),
        ({"ray": "missing"}, "fail node c: ray missing, elsewhere 2.60.0"),
        (
            {"sclip": "4567", "python": "3.12.1"},
            "fail node c: python 3.12.1, elsewhere 3.11.7; sclip 4567, elsewhere 0123",
        ),
    ],
)
def test_the_node_that_differs_from_the_others_is_named(other: dict[str, str], said: str) -> None:
    assert told(machine.judge_versions({A: Answer(SAME), B: Answer(SAME), C: Answer(SAME | other)})) == said


def test_what_is_missing_everywhere_fails_everywhere() -> None:
    missing = Answer(SAME | {"parser": "missing"})
    assert statuses(machine.judge_versions({A: missing, B: missing})) == {"node a": "fail", "node b": "fail"}


def test_this_machine_has_all_that_a_run_depends_on() -> None:
    found = machine.look_versions("")
    assert set(found) == {"python", "ray", "torch", "open_clip_torch", "spacy", "parser", "sclip"}
    assert "missing" not in found.values()
    assert machine.look_versions("no_such_pipeline")["parser"] == "missing"


# Clocks, memory, disks, files


@pytest.mark.parametrize(
    ("times", "status"),
    [
        ([(100.0, 100.001, 100.002)], "ok"),
        ([(100.0, 103.0, 100.002)], "fail"),
        ([(100.0, 97.0, 100.002)], "fail"),
        ([(100.0, 103.0, 106.0)], "ok"),  # the answer took six seconds; nothing is wrong
        ([(100.0, 109.0, 106.0), (200.0, 200.001, 200.002)], "ok"),  # the quicker question counts
        ([], "fail"),
    ],
)
def test_a_clock_is_wrong_where_the_time_of_asking_does_not_explain_it(
    times: list[tuple[float, float, float]], status: str
) -> None:
    assert statuses(machine.judge_clock({A: times})) == {"node a": status}


def of_machine(
    shm: int = 2 * 10**9, free: float = 0.5, files: tuple[int, int] = (65536, 65536)
) -> dict[ClusterNode, Answer]:
    facts = {"shm": shm, "disks": {"/data": (int(free * 1e12), 10**12)}, "files": files}
    return {A: Answer(facts), B: GONE}


@pytest.mark.parametrize(("shm", "status"), [(2 * 10**9, "ok"), (64 * 2**20, "warn"), (0, "warn")])
def test_an_object_store_that_does_not_fit_into_shared_memory_is_a_warning(shm: int, status: str) -> None:
    assert statuses(machine.judge_shm(of_machine(shm))) == {"node a": status}


@pytest.mark.parametrize(("free", "status"), [(0.5, "ok"), (0.1, "warn"), (0.04, "fail")])
def test_a_disk_fails_where_ray_stops_writing_to_it(free: float, status: str) -> None:
    assert statuses(machine.judge_disk(of_machine(free=free))) == {"node a": status}


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ((65536, 65536), "ok"),
        ((1024, 65536), "warn"),
        ((1024, 1024), "fail"),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), "ok"),
    ],
)
def test_few_open_files_fail_where_the_hard_limit_is_low(files: tuple[int, int], status: str) -> None:
    assert statuses(machine.judge_files(of_machine(files=files))) == {"node a": status}


@pytest.mark.parametrize(
    ("token", "addresses", "status"),
    [(True, ["10.0.0.1"], "ok"), (False, ["127.0.0.1"], "ok"), (False, ["127.0.0.1", "10.0.0.1"], "fail")],
)
def test_a_cluster_beyond_loopback_must_ask_for_a_token(
    token: bool, addresses: list[str], status: str
) -> None:
    assert machine.check_authentication(token, addresses).status == status


# Storage


def storage(
    written: dict[ClusterNode, Answer],
    sees: dict[ClusterNode, Answer] | None = None,
    removed: dict[ClusterNode, Answer] | None = None,
) -> list[CheckFinding]:
    every = [node.id for node, answer in written.items() if not answer.failure]
    sees = {node: Answer(every) for node in written} | (sees or {})
    removed = {node: Answer() for node in written} | (removed or {})
    return reach.judge_storage("/mnt/shared", written, sees, removed)


OK = Answer()


def test_storage_that_all_nodes_share_is_ok() -> None:
    findings = storage({A: OK, B: OK})
    assert statuses(findings) == {"node a": "ok", "node b": "ok"}
    assert findings[0].found == "writes, reads, removes, sees 1 others"


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (
            storage({A: OK, B: Answer(failure="PermissionError: /mnt")}),
            "fail node b: cannot write: PermissionError: /mnt",
        ),
        (storage({A: OK, B: OK}, {B: Answer([B.id])}), "fail node b: does not see what node a wrote"),
        (storage({A: OK, B: OK}, {B: GONE}), f"fail node b: cannot list: {GONE.failure}"),
        (
            storage({A: OK, B: OK}, None, {B: Answer(failure="OSError: no")}),
            "fail node b: cannot remove: OSError: no",
        ),
    ],
)
def test_the_node_that_cannot_use_the_storage_is_named(findings: list[CheckFinding], said: str) -> None:
    assert told(findings) == said


def test_a_secret_in_the_storages_address_is_not_shown() -> None:
    (finding,) = reach.judge_storage("s3://key:secret@bucket/runs", {A: Answer(failure="x")}, {}, {})
    assert "secret" not in finding.remedy
    assert "bucket/runs" in finding.remedy


def test_what_is_written_for_the_check_is_seen_and_removed_again(tmp_path: Path) -> None:
    place = str(tmp_path / "new" / "storage")
    reach.write(place, "a")
    assert reach.seen(place, ["a", "b"]) == ["a"]
    reach.remove(place, "a")
    assert list(Path(place).iterdir()) == []


def test_a_storage_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        reach.write(str(tmp_path / "file"), "a")


# Shards


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (
            Answer(failure="ShardError: /data/0.tar: no such file"),
            "fail node b: ShardError: /data/0.tar: no such file",
        ),
        (Answer((0, 0, 0.1)), "fail node b: no sample in the first shards"),
        (Answer((100, 10**7, 5.0)), "warn node b: 20 samples/s, 2 MB/s of 9 shards"),
    ],
)
def test_the_node_that_reads_no_shards_or_reads_them_slowly_is_named(b: Answer, said: str) -> None:
    assert told(reach.judge_shards(9, {A: Answer((1000, 10**8, 1.0)), B: b})) == said


def test_shards_that_all_nodes_read_have_their_rate() -> None:
    findings = reach.judge_shards(9, {A: Answer((1000, 10**8, 1.0)), B: Answer((500, 5 * 10**7, 1.0))})
    assert [finding.found for finding in findings] == [
        "1,000 samples/s, 100 MB/s of 9 shards", "500 samples/s, 50 MB/s of 9 shards",
    ]  # fmt: skip


def test_a_few_samples_that_one_node_reads_in_a_moment_and_another_in_less_make_it_not_slow() -> None:
    findings = reach.judge_shards(1, {A: Answer((8, 1000, 0.001)), B: Answer((8, 1000, 0.02))})
    assert [finding.status for finding in findings] == ["ok", "ok"]


def test_of_many_shards_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_SAMPLES", 5)
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_bytes(tar_bytes([m for n in range(4) for m in pair(str(n))]))
    samples, size, seconds = reach.read_some([str(tmp_path / "0.tar"), str(tmp_path / "1.tar")], DataConfig())
    assert (samples, size) == (5, 5 * len("image of 0"))
    assert seconds > 0


class NoNodes:
    """Nodes that are not asked."""


@pytest.mark.parametrize(
    ("shards", "status", "found"),
    [((), "ok", "scenes are generated"), (("/nowhere/*.tar",), "fail", "no such shard")],
)
def test_shards_that_are_not_given_or_not_there_need_no_node(
    shards: tuple[str, ...], status: str, found: str
) -> None:
    (finding,) = reach.check_shards(NoNodes(), Config(data=DataConfig(shards=shards)))  # type: ignore[arg-type]
    assert finding.status == status
    assert found in finding.found


# MLflow


def test_a_run_is_written_into_the_store_and_taken_back(tmp_path: Path) -> None:
    uri = empty_store(tmp_path)
    config = Config(run=RunConfig(storage=str(tmp_path)), tracking=TrackingConfig(uri=uri))
    finding = reach.check_mlflow(config, 120)
    assert (finding.status, finding.found) == ("ok", f"{uri}: a run was written and removed")
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'sclip'")
    assert client.search_runs([experiment.experiment_id]) == []


def test_a_server_that_does_not_answer_fails_with_its_address_and_without_its_password(
    tmp_path: Path,
) -> None:
    port = free_port()
    uri = f"http://me:secret@127.0.0.1:{port}"
    config = Config(run=RunConfig(storage=str(tmp_path)), tracking=TrackingConfig(uri=uri))
    finding = reach.check_mlflow(config, 120)
    assert finding.status == "fail"
    assert f"127.0.0.1:{port}" in finding.found
    assert "secret" not in finding.found


def test_a_store_that_hangs_fails_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(reach, "try_store", lambda _: os.read(reader, 1))  # until the test lets it go
    finding = reach.check_mlflow(Config(), 0.05)
    os.write(writer, b"x")
    assert (finding.status, finding.found) == ("fail", "no answer in 0.05 s")


# The processes of a run


def test_an_all_reduce_that_every_rank_ends_has_the_slowests_rate() -> None:
    (finding,) = collective.judge_collective(
        [A, A, B], {0: Answer(2.0), 1: Answer(3.0), 2: Answer(1.5)}, gpus=True
    )
    assert (finding.check, finding.status) == ("nccl", "ok")
    assert finding.found == "all-reduce over 3 GPUs, 1.50 GB/s"


@pytest.mark.parametrize("gpus", [True, False])
def test_each_node_whose_rank_fails_is_named_once(gpus: bool) -> None:
    answers = {
        0: Answer(2.0),
        1: Answer(failure="no answer in 30 s"),
        2: Answer(failure="RuntimeError: nccl"),
    }
    (finding,) = collective.judge_collective([A, B, B], answers, gpus)
    assert (finding.check, finding.where, finding.status) == ("nccl" if gpus else "gloo", "node b", "fail")
    assert finding.found == "no answer in 30 s"


# What is told


def test_the_worst_finding_is_the_status_of_all() -> None:
    ok, warn, fail = (CheckFinding("check", "where", status, "") for status in ("ok", "warn", "fail"))  # type: ignore[arg-type]
    assert [worst(of) for of in ([], [ok], [ok, warn], [fail, warn, ok])] == ["ok", "ok", "warn", "fail"]
    assert json.loads(to_json([ok, fail])) == {
        "status": "fail",
        "findings": [
            {"check": "check", "where": "where", "status": status, "found": "", "remedy": ""}
            for status in ("ok", "fail")
        ],
    }


def test_many_nodes_that_are_well_are_one_line_beside_those_that_are_not() -> None:
    findings = [CheckFinding("disk", f"node {number}", "ok", f"{number} GB free") for number in range(20)]
    findings.append(CheckFinding("disk", "node 20", "fail", "[full]", "make room"))
    console = Console(file=io.StringIO(), width=100)
    show(findings, console)
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines() if "disk" in line]
    assert lines == [
        "ok disk 20 nodes such as 0 GB free".split(), "fail disk node 20 [full]".split(),
        "fail: disk, node 20: make room".split(),
    ]  # fmt: skip
