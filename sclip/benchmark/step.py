"""The training step beside its peers: time, operations, memory, and how long a checkpoint holds it up.

`python jobs/benchmark.py step`, or `python -m sclip.benchmark.step` where only torch and open_clip are installed. On a
CPU a small ViT stands for the models whose rows need a GPU; what cannot be measured here says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.step_cases import SMALL_NAME, Case, add_small_model
from sclip.benchmark.step_profile import profiled
from sclip.benchmark.step_rows import arithmetic, faster, line, peak_memory, stall, utilisation
from sclip.benchmark.table import Plain, Table

ROWS_ON_CPU, ROWS_ON_GPU = 32, 2048
TRAIN_ONE_EPOCH = "open_clip_train's train_one_epoch"


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare what this benchmark takes."""
    arguments.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    arguments.add_argument(
        "--rows",
        type=int,
        default=ROWS_ON_GPU if torch.cuda.is_available() else ROWS_ON_CPU,
        help=f"batch of the step times (default: {ROWS_ON_CPU}, on a GPU {ROWS_ON_GPU})",
    )
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
    cuda, rounds = torch.cuda.is_available(), options.rounds
    if cuda:
        case = Case("ViT-B-32", options.rows, torch.device("cuda"), "bf16")
        memory, part = replace(case, model="ViT-L-14", rows=256, kee=True), 32
    else:
        torch.set_num_threads(1)
        add_small_model()
        case = Case(SMALL_NAME, options.rows, torch.device("cpu"), "fp32")
        memory, part = replace(case, rows=2 * options.rows, kee=True), options.rows // 4
    full = replace(case, full=True)
    base, large = (replace(case, model=m, rows=n) for m, n in (("ViT-B-32", 4096), ("ViT-L-14", 512)))
    above = "" if cuda else ", above model, gradients and moments"
    lines = [
        line("step, 77 tokens", TRAIN_ONE_EPOCH, "1.0 x, 1.15 x", lambda: faster(full, rounds, on_round)),
        line("step, COCO's lengths", TRAIN_ONE_EPOCH, "", lambda: faster(case, rounds, on_round)),
        line(
            "one negative and KEE", "arithmetic of the operations", "within 1.08, 1.03",
            lambda: arithmetic(case, rounds, on_round),
        ),
        line(
            "MFU, ViT-B-32, batch 4096, bf16, COCO's lengths", "peak of the device", "35 %, 50 %",
            lambda: utilisation(base, rounds),
        ),
        line(
            "MFU, ViT-L-14, batch 512, bf16, COCO's lengths", "peak of the device", "45 %, 60 %",
            lambda: utilisation(large, rounds),
        ),
        line(
            f"peak memory, {memory.model}, batch {memory.rows} by {part}{above}", "the batch whole",
            "a third, a quarter", lambda: peak_memory(memory, part),
        ),
        line(
            "checkpoint, training stands still", "synchronous DCP", "a tenth, a fiftieth",
            lambda: stall(replace(case, kee=True), rounds),
        ),
    ]  # fmt: skip
    profile = profiled(replace(case, kee=True), options.profile) if options.profile else ""
    shown = {
        "device": torch.cuda.get_device_name() if cuda else "CPU, one thread",
        "model": f"{case.model}, batch {case.rows}, {case.precision}",
    }
    return Table(lines, profile, shown | machine(["torch", "open_clip_torch"]))


def main(argv: list[str]) -> int:
    """Print the table where no table library is; 0, or 2 where it cannot be measured or the usage is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures of every round")
    given = parser.parse_args(argv)
    try:
        table = run(given, lambda _: None)
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    if given.json:
        given.json.write_text(json.dumps(table.to_json(), indent=1) + "\n")
    table.show(Plain())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
