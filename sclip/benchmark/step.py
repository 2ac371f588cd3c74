"""The training step beside its peers: time, operations, memory, and how long a checkpoint holds it up.

`python jobs/benchmark.py step`, or `python -m sclip.benchmark.step` where only torch and open_clip are installed. On a
CPU a small ViT stands for the models whose rows need a GPU; what cannot be measured here says so.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import open_clip
import torch

from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.step_cases import Case, Ours, peer
from sclip.train import checkpoint
from sclip.train.flops import peak_flops

SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 112, "patch_size": 16, "width": 256, "layers": 6},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 6},
}
SMALL_NAME = "benchmark-vit"
NO_GPU = "not measured: needs a GPU"


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    peer: str
    wanted: str
    found: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """All rows, and what they were measured on."""

    lines: list[Line]
    profile: str
    made_on: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {"made_on": self.made_on, "rows": [vars(line) for line in self.lines], "profile": self.profile}

    def show(self, console: Any) -> None:
        """Print it, with anything that has rich's or builtins' `print` of one text."""
        widths = [max(len(line[k]) for line in self._cells()) for k in range(4)]
        for cells in self._cells():
            console.print(
                "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip(), soft_wrap=True
            )
        for name, value in self.made_on.items():
            console.print(f"{name:<18}{value}", soft_wrap=True)
        if self.profile:
            console.print(self.profile, soft_wrap=True)

    def _cells(self) -> list[tuple[str, str, str, str]]:
        head = ("", "peer", "wanted", "measured")
        return [head, *((line.what, line.peer, line.wanted, line.found) for line in self.lines)]


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare what this benchmark takes."""
    arguments.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    arguments.add_argument("--rows", type=int, default=32, help="batch of the CPU rows (default: 32)")
    arguments.add_argument(
        "--profile",
        type=Path,
        metavar="DIR",
        help="profile a step with negatives and KEE, and write its trace",
    )


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure all rows; raises BenchmarkError for what the user can put right."""
    if options.rows < 4 or options.rows % 4 or options.rounds < 1:
        raise BenchmarkError("--rows: a multiple of 4; --rounds: 1 or more")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _small_model(Path(folder))
    precision: Literal["fp32", "bf16"] = "bf16" if cuda else "fp32"
    name, rows = ("ViT-B-32", 2048) if cuda else (SMALL_NAME, options.rows)
    case = Case(name, rows, device, precision)
    lines = [*_step_times(case, options.rounds, on_round), *_utilisation(device, options.rounds)]
    lines += [_memory(device, options.rows), _stall(case)]
    profile = (
        _profile(Case(name, rows, device, precision, kee=True), options.profile) if options.profile else ""
    )
    shown = {
        "device": torch.cuda.get_device_name() if cuda else "CPU, one thread",
        "model": f"{name}, batch {rows}, {precision}",
    }
    return Table(lines, profile, shown | machine(["torch", "open_clip_torch"]))


def _small_model(folder: Path) -> None:
    (folder / f"{SMALL_NAME}.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(folder)


def _step_times(case: Case, rounds: int, on_round: Callable[[int], None]) -> list[Line]:
    """Return the rows of step times: against open_clip's, and with negatives and KEE against their arithmetic."""
    full = Case(case.model, case.rows, case.device, case.precision, full=True)
    more = Case(case.model, case.rows, case.device, case.precision, kee=True)
    ours = {"full": Ours(full), "real": Ours(case), "more": Ours(more)}
    steps: dict[str, Callable[[], object]] = {**ours, "peer, full": peer(full), "peer, real": peer(case)}
    found = _in_turns(steps, rounds, case.device, on_round)

    def ratio(one: str, other: str) -> float:
        return median(a / b for a, b in zip(found[one], found[other], strict=True))

    faster = {length: ratio(f"peer, {length}", length) for length in ("full", "real")}
    arithmetic = ours["more"].flops / ours["real"].flops
    over = ratio("more", "real") / arithmetic
    medians = {f"{name}_s": median(times) for name, times in found.items()}
    train_one_epoch = "open_clip_train's train_one_epoch"
    return [
        Line("step, 77 tokens", train_one_epoch, "1.0 x, 1.15 x", f"{faster['full']:.2f} x as fast", medians),
        Line("step, COCO's lengths", train_one_epoch, "", f"{faster['real']:.2f} x as fast", medians),
        Line(
            "one negative and KEE", f"arithmetic: {arithmetic:.2f} x the operations", "within 1.08, 1.03",
            f"{ratio('more', 'real'):.2f} x the time, {over:.2f} of it", {"over": over, "arithmetic": arithmetic},
        ),
    ]  # fmt: skip


def _utilisation(device: torch.device, rounds: int) -> list[Line]:
    """Return the rows of model FLOP utilisation, which need a GPU whose peak is known."""
    lines = []
    for name, rows, wanted in (("ViT-B-32", 4096, "35 %, 50 %"), ("ViT-L-14", 512, "45 %, 60 %")):
        what, found, figures = f"MFU, {name}, batch {rows}, bf16", NO_GPU, {}
        peak = peak_flops(torch.cuda.get_device_name(), "bf16") if device.type == "cuda" else None
        if peak:
            ours = Ours(Case(name, rows, device, "bf16", full=True))
            (times,) = _in_turns({"ours": ours}, rounds, device, lambda _: None).values()
            mfu = ours.flops / median(times) / peak
            found, figures = f"{100 * mfu:.0f} %", {"mfu": mfu, "step_s": median(times)}
            del ours
            torch.cuda.empty_cache()
        lines.append(Line(what, "peak of the device", wanted, found, figures))
    return lines


def _memory(device: torch.device, rows_on_cpu: int) -> Line:
    """Return the row of peak memory in parts against the whole batch, each measured in a process of its own."""
    cuda = device.type == "cuda"
    name, rows, part = ("ViT-L-14", 256, 32) if cuda else (SMALL_NAME, 2 * rows_on_cpu, rows_on_cpu // 4)
    context = multiprocessing.get_context("spawn")
    peaks = []
    for micro_batch in (0, part):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(_peak_bytes, (name, rows, micro_batch)))
    whole, parts = peaks
    above = "" if cuda else ", above model, gradients and moments"
    return Line(
        f"peak memory, {name}, batch {rows} by {part}{above}", "the batch whole", "a third, a quarter",
        f"{parts / whole:.2f} of {whole / 1e9:.2f} GB", {"whole_bytes": whole, "parts_bytes": parts},
    )  # fmt: skip


def _peak_bytes(name: str, rows: int, micro_batch: int) -> int:
    """Return what a step takes at most: all of it on a GPU; on a CPU what it adds to model, gradients and moments."""
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    if not cuda:
        with tempfile.TemporaryDirectory() as folder:
            _small_model(Path(folder))
    device = torch.device("cuda" if cuda else "cpu")
    step = Ours(Case(name, rows, device, "bf16" if cuda else "fp32", micro_batch, kee=True))
    step()  # the moments are there from now on
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts anew
    step()
    gradients = sum(p.numel() * p.element_size() for p in step.model.parameters())
    return _status_bytes("VmHWM") - before - gradients


def _status_bytes(name: str) -> int:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def _stall(case: Case) -> Line:
    """Return the row of the time that training stands still for a checkpoint."""
    ours = Ours(Case(case.model, case.rows, case.device, case.precision, kee=True))
    ours()
    saver = checkpoint.Saver()
    seconds: dict[str, list[float]] = {"synchronous_s": [], "asynchronous_s": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            _wait(case.device)
            started = time.perf_counter()
            checkpoint.save(f"{folder}/a{number}", ours.model, ours.optimizer, {})
            saved = time.perf_counter()
            saver.start(f"{folder}/b{number}", ours.model, ours.optimizer, {})
            stood = time.perf_counter() - saved
            saver.wait()
            if number:  # the first copies into memory that was never touched
                seconds["synchronous_s"].append(saved - started)
                seconds["asynchronous_s"].append(stood)
    saver.close()
    share = median(seconds["asynchronous_s"]) / median(seconds["synchronous_s"])
    return Line(
        "checkpoint, training stands still", "synchronous DCP with checksums", "a tenth, a fiftieth",
        f"1/{1 / share:.0f} of {median(seconds['synchronous_s']):.2f} s",
        {name: median(values) for name, values in seconds.items()} | {"share": share},
    )  # fmt: skip


def _profile(case: Case, folder: Path) -> str:
    """Write a trace of three steps, and return which operations take the time."""
    from torch.profiler import profile

    ours = Ours(case)
    ours()
    _wait(case.device)
    folder.mkdir(parents=True, exist_ok=True)
    with profile() as found:
        started = time.perf_counter()
        for _ in range(3):
            ours()
        _wait(case.device)
        elapsed_us = 1e6 * (time.perf_counter() - started)
    found.export_chrome_trace(str(folder / "step.json"))
    cuda = case.device.type == "cuda"
    own = [(e.self_device_time_total if cuda else e.self_cpu_time_total, e.key) for e in found.key_averages()]
    busy = sum(us for us, _ in own)
    lines = [f"profile of a step with negatives and KEE ({folder / 'step.json'}): {elapsed_us / 3e3:.1f} ms"]
    lines += [f"{us / busy:7.1%}  {name}" for us, name in sorted(own, reverse=True)[:12]]
    if cuda:
        lines.append(f"{max(0.0, 1 - busy / elapsed_us):7.1%}  of the time no kernel runs")
    return "\n".join(lines)


def _in_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    on_round: Callable[[int], None],
) -> dict[str, list[float]]:
    """Return the seconds of each step in each round; two rounds to warm up do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    # On a CPU the time that the process had a core: other programs take turns with it.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for number in range(rounds + 2):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            _wait(device)
            started = clock()
            steps[name]()
            _wait(device)
            if number > 1:
                seconds[name].append(clock() - started)
        on_round(number)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class _Plain:
    def print(self, text: str, soft_wrap: bool = True) -> None:
        print(text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    run(parser.parse_args(sys.argv[1:]), lambda _: None).show(_Plain())
