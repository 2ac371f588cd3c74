"""The stream benchmark: both sides read the same samples, and every row is in the table. No test asserts a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.stream_cases import CpuClock, StreamCase, Times, plan_of
from sclip.benchmark.stream_kills import PeerTraining, count, peer_killed
from sclip.benchmark.stream_peers import loader_of
from sclip.benchmark.stream_rows import seam
from sclip.benchmark.stream_shards import Shards, make, numbered
from sclip.benchmark.stream_shuffle import Mixture, of_webdataset, shards_of_batches, shuffling
from sclip.benchmark.stream_shuffle import ours as places_of_ours
from sclip.benchmark.worker_stream import batches_of
from sclip.data import columns as col
from sclip.data.encode import Encoder
from sclip.data.reader import read_round
from sclip.prepare.pack import RawSample, write_shards
from sclip.scenegraph import Parser
from support.annotated_shards import annotate_here
from support.paths import ROOT
from support.pictures import encoded, noise
from support.processes import environment

SAMPLES, SIDE = 20, 32
Side = Callable[[Mixture], np.ndarray]
CAPTIONS = (
    "a red square is left of a blue circle", "a man riding a brown horse", "two dogs", "a cup on a table",
)  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> StreamCase:
    """A case whose shards are annotated in this process and read by one process."""
    folder = tmp_path_factory.mktemp("shards")
    images = [numbered(encoded(noise(48, 40, n % 3), "JPEG"), n) for n in range(SAMPLES)]
    raw = [RawSample(f"{n:04d}", image, (CAPTIONS[n % 4], f"a dog {n}")) for n, image in enumerate(images)]
    write_shards(raw, folder / "plain", samples_per_shard=6)
    plain = sorted(str(path) for path in (folder / "plain").glob("*.tar"))
    urls = tuple(annotate_here(plain, folder / "annotated", Parser()))
    shards = Shards(tuple(plain), urls, (6, 6, 6, 2), "a test")
    return StreamCase(shards, processes=1, cpus=2, image_size=SIDE, batch=8)


def ours(case: StreamCase) -> dict[int, dict[str, np.ndarray]]:
    """Return the rows of our stream, read and encoded in this process, keyed by image digest."""
    plan = plan_of(case, annotated=True)
    config = replace(plan.config, data=replace(plan.config.data, block_samples=case.block))
    encoder = Encoder(config, plan.image_size)
    visits = {entry: plan.visit(entry) for entry in range(len(plan.order.schedule))}
    blocks = (
        encoder(table)
        for _, round_ in plan.order.rounds()
        for table in read_round(replace(plan.reading, config=config), round_, round_.share(0, 1), visits)
    )
    batches = [(batch.columns, batch.rows) for batch in batches_of([blocks], plan.order)]
    assert [rows for _, rows in batches] == [8, 8, 4]
    return {
        int(columns[col.IMAGE_DIGEST][row]): {name: columns[name][row] for name in col.MODEL_COLUMNS}
        for columns, rows in batches
        for row in range(rows)
    }


def test_the_data_loader_and_our_stream_give_byte_identical_rows(case: StreamCase) -> None:
    expected = ours(case)
    assert len(expected) == SAMPLES
    seen = []
    for columns in loader_of(case):
        assert set(columns) == set(col.MODEL_COLUMNS)
        for row, key in enumerate(columns[col.IMAGE_DIGEST].tolist()):
            seen.append(key)
            for name in col.MODEL_COLUMNS:
                np.testing.assert_array_equal(columns[name][row].numpy(), expected[key][name], err_msg=name)
    assert sorted(seen) == sorted(expected)
    assert any(row[col.HAS_NEGATIVE].all() for row in expected.values())


def test_the_cpu_clock_still_counts_a_process_that_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "sum(range(10**6)); input()"], stdin=subprocess.PIPE)
    clock = CpuClock(lambda: [os.getpid()], families=True)
    with_child = clock.seconds()
    alone = CpuClock(lambda: [os.getpid()], families=False).seconds()
    child.communicate(b"\n")
    assert clock.seconds() >= with_child
    assert with_child >= alone > 0


def test_a_seam_is_the_longest_step_at_a_change_of_passes_minus_the_median() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 6.5, 7.5, 8.5, 20.0]
    passes = [{0}, {0}, {0}, {0, 1}, {1}, {1}, {1}, {1}]
    assert seam(Times(at=times, passes=passes)) == 2.5
    overlapping = [{0}, {0}, {0, 1}, {1}, {0, 1}, {1}, {1}, {1}]
    assert seam(Times(at=times, passes=overlapping)) == 2.5
    assert seam(Times(at=[0.0, 1.0, 5.0, 6.0], passes=[{0}, {0}, {1}, {1}])) == 3.0


@pytest.mark.parametrize(
    ("folder", "error"), [("absent", "no .jpg or .jpeg"), ("broken", "not a readable image")]
)
def test_unreadable_photographs_are_refused_with_the_reason(tmp_path: Path, folder: str, error: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(BenchmarkError, match=error):
        make(tmp_path, 4, 2, tmp_path / folder, None, lambda: 1.0)


def test_a_round_that_is_too_short_to_measure_has_no_rate() -> None:
    assert Times(at=[1.0, 2.0, 3.0], samples=[10, 10, 20]).rate == 15.0
    with pytest.raises(BenchmarkError, match=r"a round takes 0\.50 s, too short to measure; 90 or more"):
        _ = Times(at=[1.0, 1.5], samples=[10, 20]).rate


@pytest.mark.parametrize("side", [places_of_ours, of_webdataset])
def test_without_buffers_one_stream_reads_the_tars_one_after_another(side: Side) -> None:
    places = side(Mixture(4, 8, batch=8, open_shards=1, gpus=1, shuffle_buffer=0, peer_buffer=1))
    assert sorted(places.flatten()) == list(range(32))
    assert (np.diff(places, axis=1) == 1).all()
    assert shards_of_batches(places, 8) == [1.0] * 4


def test_every_batch_has_rows_of_all_open_shards_and_separates_neighbours_of_a_tar() -> None:
    mixture = Mixture(24, 64, batch=48, open_shards=6, gpus=2, shuffle_buffer=16, peer_buffer=16)
    assert sorted(of_webdataset(mixture).flatten()) == sorted(places_of_ours(mixture).flatten())
    text, figures = shuffling(mixture)
    assert min(figures["ours_shards"]) == 6
    assert len(figures["ours_shards"]) == len(figures["peer_shards"]) == 24 * 64 / 48
    assert figures["ours_apart"][0] > 6
    assert f"; the peer {np.median(figures['peer_shards']):.0f} shards" in text


def test_missed_and_repeated_rows_are_counted_without_rolled_back_steps(tmp_path: Path) -> None:
    lines = [
        {"from_step": 0}, {"epoch": 0, "keys": ["a", "b"]}, {"epoch": 0, "keys": ["c"]},
        {"from_step": 1}, {"epoch": 0, "keys": ["c", "a"]}, {"epoch": 1, "keys": ["b", "c"]},
    ]  # fmt: skip
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert count(tmp_path, rows=2 * 3) == (1, 1)  # missed: a of the second epoch; repeated: a of the first


def test_the_peers_loop_reads_every_row_once_if_nothing_kills_it(tmp_path: Path, case: StreamCase) -> None:
    training = PeerTraining(str(tmp_path / "peer"), case.shards.annotated, 1, 2)
    assert peer_killed(training, SAMPLES, 0) == (0, 0)


JOB = """
import sys
from functools import partial
from sclip.benchmark import stream, stream_cases
from sclip.cli import main
# Everything as it is, but small: a round need not be long enough to be told, nor the modelled runs very long.
stream_cases._TIMES_IN_FLIGHT, stream_cases._SHORTEST_S = 2, 0.0
small = stream.Mixture(24, 64, batch=48, open_shards=6, gpus=2, shuffle_buffer=16, peer_buffer=16)
stream.Mixture, stream.Scale = lambda *_: small, partial(stream.Scale, shards=1000)
sys.exit(main(["benchmark", *sys.argv[1:]]))
"""


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_the_job_prints_every_row_and_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    arguments = f"stream --rounds 1 --samples 256 --batch 16 --processes 1 --json {out}"
    command = [sys.executable, "-c", JOB, *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"].partition(",")[0] for row in rows] == [
        "samples a second per core", "the same", "time to the first batch", "from one epoch to the next",
        "share of a step spent waiting for data", "shards in a batch of 48", "shards in a batch of 48",
        "memory of order and stream", "the same", "the same",
    ]  # fmt: skip
    figures = [value for row in rows for values in row["figures"].values() for value in values]
    assert figures
    assert all(math.isfinite(value) and value >= 0 for value in figures)
    assert all(row["what"] in done.stdout for row in rows)
