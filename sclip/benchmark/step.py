"""Compare the training step with its peers: time, operations, memory, and how long a checkpoint stops training.

Run `sclip benchmark step`, or `python -m sclip.benchmark.step` if only torch and open_clip are installed. On a GPU it
measures ViT-B/32 and ViT-L/14, with batches as large as the GPU's memory allows; on a CPU it measures a small ViT.
Each row has its own process, and is printed and written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from sclip.benchmark.isolated import Row, measure_rows, outcome_of
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.benchmark.table import HEAD, Plain, Table, markdown, padded, widths

ROWS_ON_CPU, ROWS_ON_GPU = 32, 2048


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    add = arguments.add_argument
    add("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    add(
        "--rows",
        type=int,
        help=f"batch size of rows with a peer; maximum on a GPU (default: {ROWS_ON_CPU}, on a GPU {ROWS_ON_GPU})",
    )
    add("--seconds", type=float, default=float("inf"), help="time for all rows (default: no limit)")
    add(
        "--only",
        action="append",
        metavar="TEXT",
        help="measure the rows with this text in their name; may be repeated",
    )
    add(
        "--profile",
        type=Path,
        metavar="DIR",
        help="profile a step with negatives and KEE, and write its trace",
    )
    group = arguments.add_argument_group("the plain step of every row")
    group.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on a GPU, fp32 on a CPU")
    group.add_argument("--compile", action="store_true", help="train.compile=true")
    group.add_argument(
        "--checkpointing",
        choices=("none", "block", "selective"),
        default="none",
        help="train.activation_checkpointing",
    )
    group.add_argument(
        "--sharding", choices=("none", "ddp", "fsdp"), default="none", help="train.sharding, over one rank"
    )


def run(
    options: argparse.Namespace,
    on_round: Callable[[int], None],
    on_row: Callable[[str], None] = lambda _: None,
) -> Table:
    """Measure all rows; call `on_row` with the text of each. Raises BenchmarkError for errors that the user can fix."""
    started = time.monotonic()
    rows, shown = _planned(options)
    column_widths = widths([HEAD, *((row.what, row.peer, row.wanted, "") for row in rows)])
    table = Table([], shown)
    on_row(padded(HEAD, column_widths))
    remaining_s = options.seconds - (time.monotonic() - started)
    for line in measure_rows(rows, remaining_s, on_round):
        table.lines.append(line)
        if options.json:
            _write(options.json, table)
        on_row(padded(line.cells, column_widths))
    return table


def _planned(options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    if options.rounds < 1 or (options.rows is not None and (options.rows < 8 or options.rows % 8)):
        raise BenchmarkError("--rows: a multiple of 8; --rounds: 1 or more")
    # Imported here, because `--table` prints a saved table without torch.
    import torch

    from sclip.benchmark.step_cases import SMALL_NAME, Case
    from sclip.benchmark.step_plan import rows_of
    from sclip.benchmark.step_rows import device

    cuda = torch.cuda.is_available()
    batch = options.rows or (ROWS_ON_GPU if cuda else ROWS_ON_CPU)
    case = Case(
        model="ViT-B-32" if cuda else SMALL_NAME,
        rows=batch,
        device="cuda" if cuda else "cpu",
        precision=options.precision or ("bf16" if cuda else "fp32"),
        compile=options.compile,
        checkpointing=options.checkpointing,
        sharding=options.sharding,
    )
    models = {SMALL_NAME: (batch, "")}
    if cuda:
        models = {
            "ViT-B-32": (2 * batch, "MFU 35 %, 50 %"),
            "ViT-L-14": (max(8, batch // 32 * 8), "MFU 45 %, 60 %"),
        }
    rows = rows_of(case, models, options.rounds, options.profile)
    if options.only:
        rows = [row for row in rows if any(text in row.what for text in options.only)]
        if not rows:
            raise BenchmarkError(f"--only: no row has this in its name: {', '.join(options.only)}")
    shown = outcome_of(replace(rows[0], measure=device, case=case), 60)
    device_details = json.loads(shown.details) if not shown.error else {"device": f"not known: {shown.error}"}
    return rows, device_details | machine(["torch", "open_clip_torch"])


def _write(path: Path, table: Table) -> None:
    """Write to another file first, so that the table is complete whenever this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(table.to_json(), indent=1) + "\n")
    os.replace(unfinished, path)


def main(argv: list[str]) -> int:
    """Measure and print each row; return 0, or 2 if nothing can be measured or the usage is wrong."""
    parser = argparse.ArgumentParser(
        prog="sclip benchmark step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures of every round")
    parser.add_argument(
        "--table", type=Path, metavar="JSON", help="print the Markdown table of such a file instead"
    )
    options = parser.parse_args(argv)
    try:
        if options.table:
            print(markdown(json.loads(options.table.read_text())))
            return 0
        table = run(options, lambda _: None, partial(print, flush=True))
    except (BenchmarkError, OSError, ValueError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    table.show_details(Plain())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
