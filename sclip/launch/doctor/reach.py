"""Check access to storage and shards from each node, and to MLflow from the driver."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from operator import attrgetter

from sclip.config import Config, DataConfig
from sclip.data.patterns import expand
from sclip.data.shards import Sample, ShardError, read_shard
from sclip.launch.doctor.finding import CheckFinding
from sclip.launch.doctor.probes import Answer, ClusterNode, NodeProbes
from sclip.storage.filesystem import filesystem
from sclip.storage.masking import mask
from sclip.tracking import TrackingError, try_store

_SAMPLE_S, _SAMPLES = 5.0, 2000  # limits of what a node reads
_SHARDS = 3
"""Number of shards that each node reads. They are spread over the list: missing shards are rarely the first ones."""
_SLOW = 0.25
"""Share of the fastest node's rate below which a node counts as slow."""
_TELLING_S = 0.5
"""Minimum seconds of a read whose rate is judged; shorter reads say nothing about a node."""


def write(folder: str, name: str) -> None:
    """Write a small file to the storage, read it back, and leave it there unless it cannot be read."""
    fs, path = filesystem(_in(folder, name))
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file:
        file.write(name.encode())
    try:
        with fs.open(path, "rb") as file:
            if file.read() != name.encode():
                raise OSError("the file was read back with other bytes than were written")
    except Exception:
        with suppress(Exception):  # the first error says more
            remove(folder, name)
        raise


def seen(folder: str, names: Sequence[str]) -> list[str]:
    """Return the names of the files that this node sees."""
    return [name for name in names if _exists(_in(folder, name))]


def _exists(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def remove(folder: str, name: str) -> None:
    """Remove a file that `write` left."""
    fs, path = filesystem(_in(folder, name))
    fs.rm_file(path)


def _in(folder: str, name: str) -> str:
    base, mark, query = folder.partition("?")
    return f"{base.rstrip('/')}/.doctor-{name}{mark}{query}"


def check_storage(nodes: NodeProbes, storage: str) -> list[CheckFinding]:
    """Let every node write a file to `run.storage`, look for the files of all others, and remove its own."""
    written = nodes.each(write, storage, own=attrgetter("id"))
    wrote = [node for node, answer in written.items() if not answer.failure]
    sees = nodes.each(seen, storage, [node.id for node in wrote])
    removed = nodes.each(remove, storage, own=attrgetter("id"), of=wrote)
    return judge_storage(storage, written, sees, removed)


def judge_storage(
    storage: str,
    written: Mapping[ClusterNode, Answer],
    sees: Mapping[ClusterNode, Answer],
    removed: Mapping[ClusterNode, Answer],
) -> list[CheckFinding]:
    """Return a finding for each node: whether it can write, see the others' files, and remove its own."""
    address = mask(storage)
    shared = f"run.storage={address} must be one folder or bucket for all nodes: mount it on each node, or set a URI"
    rights = f"give this node the right to write and remove at {address}"
    findings = []
    for node, answer in written.items():
        peers = [other for other, reply in written.items() if not reply.failure and other != node]
        visible = sees.get(node, Answer(failure="was not asked"))
        blind = [other.name for other in peers if other.id not in (visible.value or ())]
        remedy = rights
        if answer.failure:
            fault = f"cannot write: {mask(answer.failure)}"
        elif visible.failure:
            fault = f"cannot list: {mask(visible.failure)}"
        elif blind:
            fault, remedy = f"does not see the file that {blind[0]} wrote", shared
        elif failure := removed[node].failure:
            fault = f"cannot remove: {mask(failure)}"
        else:
            success = "writes, reads, removes" + (f", sees {len(peers)} others" if peers else "")
            findings.append(CheckFinding("storage", node.name, "ok", success))
            continue
        findings.append(CheckFinding("storage", node.name, "fail", fault, remedy))
    return findings


def read_some(shards: Sequence[str], data: DataConfig) -> tuple[int, int, float]:
    """Read samples on this node, up to the limits; return their number, their image bytes and the seconds taken."""
    started, samples, size = time.perf_counter(), 0, 0
    for shard in shards:
        for item in read_shard(shard, data):
            if isinstance(item, Sample):
                samples, size = samples + 1, size + len(item.image)
            if samples >= _SAMPLES or time.perf_counter() - started > _SAMPLE_S:
                return samples, size, time.perf_counter() - started
    return samples, size, time.perf_counter() - started


def check_shards(nodes: NodeProbes, config: Config) -> list[CheckFinding]:
    """Read the beginning of a few shards on every node."""
    if not config.data.shards:
        return [CheckFinding("shards", "cluster", "ok", "none set: scenes are generated into run.storage")]
    try:
        urls = expand(config.data.shards)
    except ShardError as error:
        return [
            CheckFinding("shards", "driver", "fail", str(error), "check data.shards, and the credentials")
        ]
    chosen = [urls[i * (len(urls) - 1) // max(1, _SHARDS - 1)] for i in range(min(_SHARDS, len(urls)))]
    return judge_shards(len(urls), nodes.each(read_some, list(dict.fromkeys(chosen)), config.data))


def judge_shards(shards: int, answers: Mapping[ClusterNode, Answer]) -> list[CheckFinding]:
    """Return a finding for each node: whether it can read samples, at a rate not far below the fastest node's."""
    findings = []
    rates = {node: a.value[0] / max(a.value[2], 1e-9) for node, a in answers.items() if not a.failure}
    fastest = max(rates.values(), default=0.0)
    for node, answer in answers.items():
        if answer.failure:
            remedy = "mount the shards on every node, or give it the credentials (README, Your own data)"
            findings.append(CheckFinding("shards", node.name, "fail", mask(answer.failure), remedy))
            continue
        samples, size, seconds = answer.value
        text = (
            f"{rates[node]:,.0f} samples/s, {size / 1e6 / max(seconds, 1e-9):,.0f} MB/s of {shards:,} shards"
        )
        if not samples:
            text, remedy = "no sample in the first shards", "sclip validate says what is wrong with them"
            findings.append(CheckFinding("shards", node.name, "fail", text, remedy))
        elif seconds >= _TELLING_S and rates[node] < _SLOW * fastest:
            remedy = f"the fastest node reads {fastest:,.0f} samples/s: check this node's network or mount"
            findings.append(CheckFinding("shards", node.name, "warn", text, remedy))
        else:
            findings.append(CheckFinding("shards", node.name, "ok", text))
    return findings


def check_mlflow(config: Config, timeout_s: float) -> CheckFinding:
    """Write a run to the tracking store and remove it. Check only the driver, because no other process writes there."""
    pool = ThreadPoolExecutor(1)
    try:
        store = pool.submit(try_store, config).result(timeout_s)
    except (TrackingError, Late) as error:
        text = str(error) or f"no answer in {timeout_s:g} s"
        remedy = "check tracking.uri, MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD, and the server"
        return CheckFinding("mlflow", "driver", "fail", text, remedy)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return CheckFinding("mlflow", "driver", "ok", f"{store}: a run was written and removed")
