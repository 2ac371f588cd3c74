"""What the benchmark of a step measures, a function a row: time against the peer's, MFU, memory, checkpoints.

A case goes in; what was found in words, and the figures of every round, come out. The two sides of a ratio run in turns
on the same device.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict

from sclip.benchmark.machine import memory_bytes
from sclip.benchmark.step_cases import Case, Ours, add_small_model, peer
from sclip.benchmark.table import Found, Line
from sclip.train import checkpoint
from sclip.train.flops import peak_flops

__all__ = ["arithmetic", "faster", "line", "peak_memory", "stall", "utilisation", "wait"]

STEPS_ON_GPU = 10
"""Steps of a round there: what the peer does once an epoch (it reads the loss, and logs it) would count in each."""


def line(what: str, peer: str, wanted: str, measure: Callable[[], Found]) -> Line:
    """Measure a row; where it does not fit into memory the row says so, and the ones after it are measured."""
    try:
        found, figures = measure()
    except torch.OutOfMemoryError as error:
        found, figures = f"not measured: {str(error).partition('. ')[0]}", {}
    except BrokenProcessPool:
        found, figures = "not measured: its process was killed, as one is that takes too much memory", {}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the rows of memory run in processes of their own
    return Line(what, peer, wanted, found, figures)


def faster(case: Case, rounds: int, on_round: Callable[[int], None]) -> Found:
    """Return how many times as fast as open_clip's our step is."""
    steps = _steps(case)
    seconds = in_turns(
        {"ours_s": _times(Ours(case), steps), "peer_s": peer(case, steps)}, rounds, case.device, on_round
    )
    ratios = [theirs / own for own, theirs in zip(*seconds.values(), strict=True)]
    return f"{_spread(ratios)} x as fast", {name: [s / steps for s in of] for name, of in seconds.items()}


def arithmetic(case: Case, rounds: int, on_round: Callable[[int], None]) -> Found:
    """Return how the time that a negative and the KEE add stands to the operations that they add."""
    steps = _steps(case)
    plain, more = Ours(case), Ours(replace(case, kee=True))
    timed = {"plain_s": _times(plain, steps), "more_s": _times(more, steps)}
    seconds = in_turns(timed, rounds, case.device, on_round)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    flops = more.flops / plain.flops
    over = [ratio / flops for ratio in ratios]
    return (
        f"{median(ratios):.2f} x the time, {flops:.2f} x the operations: {_spread(over)}",
        {name: [s / steps for s in of] for name, of in seconds.items()}
        | {"operations": [flops], "over": over},
    )


def utilisation(case: Case, rounds: int) -> Found:
    """Return the share of the device's peak that the operations of our step are."""
    peak = None
    if case.device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(), case.precision)
    if peak is None:
        return "not measured: needs a GPU whose peak is known", {}
    steps, ours = _steps(case), Ours(case)
    seconds = in_turns({"step_s": _times(ours, steps)}, rounds, case.device, lambda _: None)["step_s"]
    found = [ours.flops * steps / s / peak for s in seconds]
    return f"{_spread([100 * share for share in found])} %", {
        "mfu": found,
        "step_s": [s / steps for s in seconds],
    }


def peak_memory(case: Case, micro_batch: int) -> Found:
    """Return the peak of a batch in parts against the same batch whole, each in a process of its own."""
    whole, parts = (_in_a_process(replace(case, micro_batch=rows)) for rows in (0, micro_batch))
    return f"{parts / whole:.2f} of {whole / 1e9:.2f} GB", {"whole_bytes": [whole], "parts_bytes": [parts]}


def _in_a_process(case: Case) -> int:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, case).result()


def _peak_bytes(case: Case) -> int:
    """Return what a step takes at most: all of it on a GPU; on a CPU what it adds to model, gradients and moments."""
    cuda = case.device.type == "cuda"
    if not cuda:
        torch.set_num_threads(1)
        add_small_model()
    step = Ours(case)
    step()  # the moments are there from now on
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts anew
    step()
    gradients = sum(p.numel() * p.element_size() for p in step.model.parameters())
    return memory_bytes("VmHWM") - before - gradients


def stall(case: Case, rounds: int) -> Found:
    """Return the time that training stands still for a checkpoint, and how much slower the step beside it is."""
    ours = Ours(case)
    ours()
    saver = checkpoint.Saver()
    seconds: dict[str, list[float]] = {"synchronous_s": [], "stall_s": [], "step_s": [], "step_beside_s": []}

    def timed(name: str, call: Callable[[], object]) -> None:
        wait(case.device)
        started = time.perf_counter()
        call()
        wait(case.device)
        seconds[name].append(time.perf_counter() - started)

    def synchronous(path: str) -> None:
        model, optimizer = get_state_dict(ours.model, ours.optimizer)
        state_dict_saver.save({"model": model, "optimizer": optimizer}, checkpoint_id=path, no_dist=True)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is one process
        for number in range(rounds + 1):
            paths = [f"{folder}/{name}-{number}" for name in ("synchronous", "beside")]
            timed("step_s", ours)
            timed("synchronous_s", partial(synchronous, paths[0]))
            timed("stall_s", partial(saver.start, paths[1], ours.model, ours.optimizer, {}))
            timed("step_beside_s", ours)
            saver.wait()
            for path in paths:
                shutil.rmtree(path)
    saver.close()
    # The first one copies into memory that was never touched.
    seconds = {name: of[1:] for name, of in seconds.items()}
    still, slower = (
        median(seconds["synchronous_s"]),
        median(seconds["step_beside_s"]) / median(seconds["step_s"]),
    )
    found = f"1/{still / median(seconds['stall_s']):.0f} of {still:.2f} s; the step beside it {slower:.2f} x"
    return found, seconds


def in_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    on_round: Callable[[int], None],
) -> dict[str, list[float]]:
    """Return the seconds of each in each round; two rounds to warm up do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    # On a CPU the time that the process had a core: other programs take turns with it.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for number in range(rounds + 2):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            wait(device)
            started = clock()
            steps[name]()
            wait(device)
            if number > 1:
                seconds[name].append(clock() - started)
        on_round(number)
    return seconds


def wait(device: torch.device) -> None:
    """Return when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _steps(case: Case) -> int:
    return STEPS_ON_GPU if case.device.type == "cuda" else 1


def _times(step: Callable[[], None], count: int) -> Callable[[], None]:
    def all_of_them() -> None:
        for _ in range(count):
            step()

    return all_of_them


def _spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the most behind it."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
