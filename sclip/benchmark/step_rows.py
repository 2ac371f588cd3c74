"""Measure the rows of the step benchmark, with a pair of functions for each kind of row.

For example, `speed` measures a case and reports figures after every round; `speed_words` turns the figures into text.
The two sides of a ratio run in turns on the same device. The plain step has no knowledge encoder, no distillation and
no change from `step_plan.SWITCHES`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.testing._internal.distributed.fake_pg import FakeStore

from sclip.benchmark.isolated import Figures, Report
from sclip.benchmark.rounds import in_turns
from sclip.benchmark.step_cases import Case, Ours, Peer, add_small_model, process_group
from sclip.benchmark.step_sizes import fit, peak_bytes
from sclip.benchmark.table import spread
from sclip.train.checkpoint import Saver
from sclip.train.checkpoint_tensors import share_of_rank, tensors_of
from sclip.train.flops import peak_flops

__all__ = [
    "RANKS", "arithmetic", "arithmetic_words", "device", "faster", "faster_words", "matmul", "matmul_words", "planning",
    "planning_words", "prepare", "speed", "speed_words", "stall", "stall_words", "wait",
]  # fmt: skip

STEPS_BESIDE_PEER, STEPS_ALONE = 10, 4
"""Steps of a round on a GPU. open_clip logs the first and the last; over ten steps, this adds little to the mean."""
RANKS = 512  # of the run whose checkpoint `planning` plans; one of them runs
SIDE_ON_GPU, SIDE_ON_CPU = 8192, 1024


def prepare(case: Case) -> None:
    """On a CPU, use one thread and register the small model with open_clip."""
    if case.device == "cpu":
        torch.set_num_threads(1)
        add_small_model()
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # in a single process


def device(case: Case, rounds: int, report: Report) -> str:
    """Describe the device of the case as JSON; measure nothing."""
    if case.device == "cpu":
        return json.dumps({"device": "CPU, one thread"})
    free, total = torch.cuda.mem_get_info()
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return json.dumps(
        {"device": f"{torch.cuda.get_device_name()}, {memory}", "cuda": str(torch.version.cuda)}
    )


def matmul(case: Case, rounds: int, report: Report) -> str:
    """Measure the product of large matrices. Its operations per second are an upper bound for any training step."""
    prepare(case)
    side = SIDE_ON_GPU if case.device == "cuda" else SIDE_ON_CPU
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    one, other = (torch.randn(side, side, device=case.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(one)
    steps = _steps(case, STEPS_BESIDE_PEER)
    product = partial(torch.matmul, one, other, out=out)
    for seconds in seconds_in_turns({"product": _repeated(product, steps)}, rounds, case):
        rates = [2 * side**3 * steps / s for s in seconds["product"]]
        report({"flops_per_s": rates} | _shares_of_peak(case, rates))
    return ""


def matmul_words(figures: Figures, _: Figures) -> str:
    """Return the operations per second, and this rate as a share of the data sheet's peak."""
    rate = f"{spread([rate / 1e12 for rate in figures['flops_per_s']])} TFLOP/s"
    return rate + (f", {100 * median(figures['mfu']):.0f} % of the data sheet's" if "mfu" in figures else "")


def speed(case: Case, rounds: int, report: Report) -> str:
    """Measure our step alone: rows per second, share of the device's peak, and memory."""
    prepare(case)
    with process_group(case):
        ours = Ours(case)
        rows = fit([ours], case)
        fixed: dict[str, Sequence[float]] = {"rows": [rows], "operations": [ours.flops]}
        fixed |= {"peak_bytes": [peak_bytes(ours)]}
        steps = _steps(case, STEPS_ALONE)
        for seconds in seconds_in_turns({"step": _repeated(ours, steps)}, rounds, case):
            step_s = [s / steps for s in seconds["step"]]
            report(fixed | {"step_s": step_s} | _shares_of_peak(case, [ours.flops / s for s in step_s]))
    return ""


def speed_words(figures: Figures, plain: Figures) -> str:
    """Return MFU, rows per second, memory and batch. Rate and memory also appear as multiples of the plain step's."""
    rows, step_s, peak = figures["rows"][0], figures["step_s"], figures["peak_bytes"][0]
    mfu = f"MFU {spread([100 * share for share in figures['mfu']], 1)} %, " if "mfu" in figures else ""
    speed_ratio = memory_ratio = ""
    if plain:
        # Compare rows per second, because the batches may differ.
        ratio = rows / median(step_s) / (plain["rows"][0] / median(plain["step_s"]))
        speed_ratio = f" ({ratio:.2f} x plain)"
        memory_ratio = f" ({peak / plain['peak_bytes'][0]:.2f} x plain)"
    return (
        f"{mfu}{rows / median(step_s):,.0f} rows/s{speed_ratio}, peak {peak / 1e9:.2f} GB{memory_ratio}, "
        f"batch {rows:.0f}"
    )


def faster(case: Case, rounds: int, report: Report) -> str:
    """Measure our step and open_clip's step in turns."""
    prepare(case)
    with process_group(case):
        ours, peer = Ours(case), Peer(case)
        rows, steps = fit([ours, peer], case), _steps(case, STEPS_BESIDE_PEER)
        sides: dict[str, Callable[[], object]] = {
            "ours_s": _repeated(ours, steps),
            "peer_s": partial(peer, steps),
        }
        for seconds in seconds_in_turns(sides, rounds, case):
            fixed: dict[str, Sequence[float]] = {"rows": [rows]}
            report(fixed | {name: [s / steps for s in times] for name, times in seconds.items()})
    return ""


def faster_words(figures: Figures, _: Figures) -> str:
    """Return the speed of our step as a multiple of the peer's."""
    ratios = [peer / ours for ours, peer in zip(figures["ours_s"], figures["peer_s"], strict=True)]
    return f"{spread(ratios)} x as fast, batch {figures['rows'][0]:.0f}"


def arithmetic(case: Case, rounds: int, report: Report) -> str:
    """Measure the time and the operations of the plain step and of the case's step, in turns."""
    prepare(case)
    with process_group(case):
        sides = [Ours(replace(case, kee=False, distil=False)), Ours(case)]
        rows, steps = fit(sides, case), _steps(case, STEPS_ALONE)
        operations = sides[1].flops / sides[0].flops
        timed = {
            name: _repeated(side, steps) for name, side in zip(("plain_s", "more_s"), sides, strict=True)
        }
        for seconds in seconds_in_turns(timed, rounds, case):
            fixed: dict[str, Sequence[float]] = {"rows": [rows], "operations": [operations]}
            report(fixed | {name: [s / steps for s in times] for name, times in seconds.items()})
    return ""


def arithmetic_words(figures: Figures, _: Figures) -> str:
    """Return the case's time and operations as multiples of the plain step's, and the ratio of these two multiples."""
    (operations,) = figures["operations"]
    ratios = [more / plain for plain, more in zip(figures["plain_s"], figures["more_s"], strict=True)]
    over = spread([ratio / operations for ratio in ratios])
    return f"{median(ratios):.2f} x the time, {operations:.2f} x the operations: {over}, batch {figures['rows'][0]:.0f}"


def stall(case: Case, rounds: int, report: Report) -> str:
    """Measure how long a checkpoint stops training, and how long a step takes while the checkpoint is written.

    Training stops while the checkpoint starts, and again before the next update of the weights until they are copied.
    """
    prepare(case)
    names = ("step_s", "synchronous_s", "stall_s", "step_meanwhile_s")
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def elapsed(call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        if case.device == "cuda":
            torch.cuda.current_stream().synchronize()  # this does not wait for the copies, which have their own stream
        return time.perf_counter() - started

    with process_group(case), tempfile.TemporaryDirectory() as folder:
        ours, saver = Ours(case), Saver()
        rows = fit([ours], case)

        def synchronous(path: str) -> None:
            model, optimizer = get_state_dict(ours.model, ours.optimizer)
            alone = case.sharding == "none"
            state_dict_saver.save({"model": model, "optimizer": optimizer}, checkpoint_id=path, no_dist=alone)

        def before_update() -> None:
            elapsed(lambda: None)
            seconds["stall_s"][-1] += elapsed(saver.until_copied)

        for number in range(rounds + 1):
            paths = [f"{folder}/{name}-{number}" for name in ("synchronous", "meanwhile")]
            seconds["step_s"].append(elapsed(ours))
            seconds["synchronous_s"].append(elapsed(partial(synchronous, paths[0])))
            start = partial(saver.start, paths[1], ours.model, ours.optimizer, {})
            seconds["stall_s"].append(elapsed(start))
            ours.step.before_update = before_update
            seconds["step_meanwhile_s"].append(elapsed(ours))
            ours.step.before_update = lambda: None
            saver.wait()
            for path in paths:
                shutil.rmtree(path)
            if number:  # the first round is slower: it copies into memory that was never touched
                report({"rows": [rows]} | {name: times[1:] for name, times in seconds.items()})
        saver.close()
    return ""


def stall_words(figures: Figures, _: Figures) -> str:
    """Return the stall as a share of a synchronous checkpoint's time, and a step's slowdown during the writing."""
    synchronous, stalled = median(figures["synchronous_s"]), median(figures["stall_s"])
    slower = median(figures["step_meanwhile_s"]) / median(figures["step_s"])
    return f"1/{synchronous / stalled:.0f} of {synchronous:.2f} s ({stalled:.3f} s); the step meanwhile {slower:.2f} x"


def planning(case: Case, rounds: int, report: Report) -> str:
    """Measure how long one of `RANKS` ranks takes to find its share of a checkpoint and to plan its file."""
    prepare(case)
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    ours, seconds = Ours(case), list[float]()
    for number in range(rounds + 1):  # the first round creates the optimizer's moments
        started = time.perf_counter()
        share, _ = share_of_rank(tensors_of(ours.model, ours.optimizer, None)[0])
        planner = DefaultSavePlanner(flatten_state_dict=False)
        planner.set_up_planner(share)
        planner.create_local_plan()
        seconds.append(time.perf_counter() - started)
        if number:
            report({"planning_s": seconds[1:]})
    dist.destroy_process_group()
    return ""


def planning_words(figures: Figures, _: Figures) -> str:
    """Return the seconds of planning."""
    return f"{spread(figures['planning_s'])} s"


def seconds_in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, case: Case
) -> Iterator[dict[str, list[float]]]:
    """Yield each side's seconds so far after every round but the first, which warms up."""
    # On a CPU, use the process's CPU time, because other programs share the cores.
    clock = time.perf_counter if case.device == "cuda" else time.process_time

    def seconds(side: Callable[[], object], _: int) -> float:
        wait(case)
        started = clock()
        side()
        wait(case)
        return clock() - started

    timed = {name: partial(seconds, side) for name, side in sides.items()}
    for results in islice(in_turns(timed, rounds + 1), 1, None):
        yield {name: times[1:] for name, times in results.items()}


def wait(case: Case) -> None:
    """Wait until the device has finished all work."""
    if case.device == "cuda":
        torch.cuda.synchronize()


def _steps(case: Case, on_gpu: int) -> int:
    return on_gpu if case.device == "cuda" else 1


def _repeated(step: Callable[[], object], count: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(count):
            step()

    return repeat


def _shares_of_peak(case: Case, rates: Sequence[float]) -> dict[str, Sequence[float]]:
    """Return {"mfu": `rates` (operations a second) as shares of the device's peak}; {} if the peak is unknown."""
    peak = peak_flops(torch.cuda.get_device_name(), case.precision) if case.device == "cuda" else None
    return {} if peak is None else {"mfu": [rate / peak for rate in rates]}
