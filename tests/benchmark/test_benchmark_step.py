"""The step benchmark: each row runs in its own process, is sized by GPU memory and cannot break the other rows."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sclip.benchmark import step
from sclip.benchmark.isolated import measure_rows
from sclip.benchmark.step_cases import SMALL_NAME, Case, add_small_model, columns_of
from sclip.benchmark.step_plan import rows_of
from sclip.benchmark.step_profile import gaps, kernels
from sclip.benchmark.step_rows import speed_words
from sclip.benchmark.step_sizes import fit, round_number
from sclip.benchmark.step_traffic import block_traffic
from sclip.benchmark.table import Line, Plain, Table
from support.benchmark_rows import exiting, failing, good, hanging, killed, row, silent
from support.paths import ROOT

JOB = [sys.executable, str(ROOT / "jobs" / "benchmark.py")]


def test_the_job_measures_every_kind_of_row_and_writes_the_results(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    only = ["product", "77 tokens", "one negative", "checkpoint", "profile", "fp32, in", "fsdp"]
    if torch.cuda.is_available():
        only = ["ViT-B-32", *only]
    chosen = [argument for text in only for argument in ("--only", text)]
    command = [*JOB, *f"step --rounds 1 --rows 8 --json {out} --profile {tmp_path}".split(), *chosen]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert len(rows) >= len(only)
    for title, saved in rows.items():
        assert title in done.stdout
        assert saved["found"] in done.stdout
        assert not saved["found"].startswith("not measured"), saved
        assert all(figure >= 0 for figures in saved["figures"].values() for figure in figures), saved
    assert json.loads(gzip.decompress((tmp_path / "step-trace.json.gz").read_bytes()))["traceEvents"]
    assert "profile of a step of" in done.stdout


def test_rows_are_printed_and_written_one_by_one_even_if_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows = tmp_path / "results" / "step.json", [row(failing), row(good)]
    monkeypatch.setattr(step, "_planned", lambda _: (rows, {"device": "none"}))
    seen: list[tuple[str, int]] = []

    def on_row(text: str) -> None:
        written = len(json.loads(out.read_text())["rows"]) if out.exists() else 0
        seen.append((text.split()[0], written))

    table = step.run(argparse.Namespace(json=out, seconds=60.0), lambda _: None, on_row)
    assert [*seen[1:], seen[0][1]] == [("failing", 1), ("good", 2), 0]
    assert json.loads(out.read_text()) == table.to_json()
    assert list(out.parent.iterdir()) == [out]
    table.show_details(Plain())
    assert capsys.readouterr().out.splitlines() == ["device            none", "details of a case"]


def test_a_failed_row_says_how_it_ended_and_the_next_row_is_still_measured() -> None:
    rows = [
        replace(
            row(good, case, compared_with=other, adapt=lambda case, figures: f"{case} {figures}"), what=case
        )
        for case, other in (("compared", "good"), ("alone", "failing"))
    ]
    lines = {
        line.what: line
        for line in measure_rows([row(failing), row(exiting), row(killed), row(silent), row(good), *rows])
    }
    assert {title: line.found for title, line in lines.items()} == {
        "failing": "not measured: ValueError: first line",
        "exiting": "not measured: its process ended with exit code 3",
        "killed": "not measured: its process was killed, probably for taking too much memory",
        "silent": "not measured: it reported no figures",
        "good": "2 rounds",
        "compared": "2 rounds, compared with {'s': [1.0, 1.0]}",
        "alone": "2 rounds",
    }
    assert 'raise ValueError("first line' in lines["failing"].traceback
    assert lines["good"].figures == {"s": [1.0, 1.0]}
    assert {title: line.details for title, line in lines.items() if line.details} == {
        "good": "details of a case",
        "compared": "details of compared {'s': [1.0, 1.0]}",
        "alone": "details of alone",
    }


def test_a_row_that_hangs_ends_with_its_children_and_keeps_the_rounds_it_finished() -> None:
    (line,) = measure_rows([replace(row(hanging), limit_s=10)])
    assert line.found == "1 rounds; not all rounds: stopped after 10 s"
    child = Path(f"/proc/{int(line.figures['pid'][0])}/stat")
    deadline = time.monotonic() + 30  # a signal that was sent takes a moment on a busy machine
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_without_time_left_are_reported_as_not_measured() -> None:
    results = [line.found for line in measure_rows([row(good), row(failing)], seconds=3)]
    assert results == ["not measured: no time was left for it"] * 2


def test_the_markdown_table_is_made_from_the_json_file_without_torch(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    lines = [Line("a step", "a|b", "1.0 x", "1.07 x", {"s": [1.0]}), Line("more", "", "", "none", {})]
    out.write_text(json.dumps(Table(lines, {"device": "CPU", "torch": "2"}).to_json()))
    program = f"""
import sys
sys.modules["torch"] = None
from sclip.benchmark.step import main
main(["--table", {str(out)!r}])
raise SystemExit(main(["--rows", "6"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "| | peer | measured, the median (least to most) |", "| --- | --- | --- |", "| a step | a\\|b | 1.07 x |",
        "| more |  | none |", "", "device CPU, torch 2",
    ], done.stderr  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "benchmark: --rows: a multiple of 8; --rounds: 1 or more\n"


class FakeSide:
    """A fake side: allocates `fixed_bytes`, `bytes_per_row` per row, and above 128 rows the GPU's `surprise`."""

    fixed_bytes, bytes_per_row = 1000, 10

    def __init__(self, gpu: FakeGPU) -> None:
        self.gpu, self.ran = gpu, []

    def load(self, rows: int) -> None:
        self.rows = rows

    def __call__(self) -> None:
        self.ran.append(self.rows)
        self.gpu.allocate(
            self.fixed_bytes + self.bytes_per_row * self.rows + self.gpu.surprise * (self.rows > 128)
        )


class FakeGPU:
    def __init__(self, total_bytes: int, surprise: int) -> None:
        self.total_bytes, self.surprise, self.peak = total_bytes, surprise, 0

    def allocate(self, count: int) -> None:
        if count > self.total_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more.")
        self.peak = max(self.peak, count)


@pytest.mark.parametrize(
    ("total_bytes", "surprise", "rows"),
    [
        (50_000, 0, 2048),  # all requested rows fit
        (11_000, 0, 832),  # 0.88 of the memory: (9680 - 1000) / 10 = 868, rounded down
        (11_000, 3000, 416),  # a batch above 128 rows takes more than expected
    ],
)
def test_a_batch_is_as_large_as_the_memory_of_the_gpu_allows(
    total_bytes: int, surprise: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGPU(total_bytes, surprise)
    side = FakeSide(gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (total_bytes - 500, total_bytes))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 500)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: gpu.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: setattr(gpu, "peak", 0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        fit([FakeSide(FakeGPU(100, 0))], Case("ViT-B-32", 64, "cuda", "bf16", sized_by_memory=False))
    assert fit([side], Case("ViT-B-32", 2048, "cuda", "bf16")) == rows
    assert side.ran[:4] == [64, 64, 128, 128]
    assert side.rows == side.ran[-1] == rows


def test_batches_are_round_numbers_that_can_be_cut_into_eight_parts() -> None:
    cases = {3: 8, 8: 8, 23: 16, 100: 96, 511: 480, 512: 512, 3700: 3584, 4096: 4096}
    assert {rows: round_number(rows) for rows in cases} == cases


def test_every_switch_has_one_row_that_is_compared_with_the_plain_step() -> None:
    bf16, ddp = Case("ViT-B-32", 64, "cuda", "bf16"), Case("ViT-B-32", 64, "cpu", "fp32", sharding="ddp")
    for base, count in ((bf16, 16), (ddp, 14)):
        rows = rows_of(base, {"ViT-B-32": (128, ""), "ViT-L-14": (16, "")}, 1, None)
        names = [row.what for row in rows]
        assert len(set(names)) == len(names)
        switched = [row for row in rows if row.compared_with]
        assert {row.compared_with for row in switched} <= set(names)
        assert len({row.case for row in switched}) == len(switched) == count
        assert names.index(switched[0].compared_with) < names.index(switched[0].what)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_block_with_lean_attention_moves_at_most_seven_tenths_of_the_memory(autocast: bool) -> None:
    plain, lean = (block_traffic(lean=lean, autocast=autocast) for lean in (False, True))
    assert 120 < plain < 180
    assert 60 < lean <= 0.7 * plain


def test_a_switched_step_is_compared_by_rows_per_second_and_memory() -> None:
    plain = {"rows": [64], "step_s": [1.0, 2.0, 3.0], "peak_bytes": [2e9]}
    switched = {"rows": [32], "step_s": [0.5], "peak_bytes": [1e9], "mfu": [0.4, 0.5, 0.6]}
    assert speed_words(switched, plain) == (
        "MFU 50.0 (40.0 to 60.0) %, 64 rows/s (2.00 x plain), peak 1.00 GB (0.50 x plain), batch 32"
    )


def test_kernels_exclude_their_launches_and_gaps_exclude_time_when_another_stream_runs() -> None:
    def event(device: str, annotation: bool = False) -> SimpleNamespace:
        return SimpleNamespace(device_type=SimpleNamespace(name=device), is_user_annotation=annotation)

    launched, kernel = event("CPU"), event("CUDA")
    assert kernels([launched, kernel, event("CUDA", annotation=True)]) == [kernel]
    assert gaps([(8, 9), (0, 4), (2, 5), (3, 4), (9, 10)]) == [3]


def test_columns_have_captions_of_the_requested_lengths_and_zeros_for_missing_negatives() -> None:
    add_small_model()
    for full in (False, True):
        columns = columns_of(Case(SMALL_NAME, 64, "cpu", "fp32", kee=True, full=full))
        lengths = columns["text"].argmax(1) + 1
        assert lengths.min() >= 5
        assert (lengths.mean() == 77) if full else (11 < lengths.mean() < 15)
        assert 0.5 < columns["has_negative"].mean() < 1
        assert columns["negative_text"][~columns["has_negative"]].any() == 0
