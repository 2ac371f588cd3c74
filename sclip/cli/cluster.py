"""Commands that check or measure this cluster or this machine."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from typing import Annotated, Literal

from sclip.cli.command import (
    ConfigName,
    Json,
    Overrides,
    PrintConfig,
    argument,
    command,
    errors,
    option,
    positive,
    read_config,
    write_json,
)  # fmt: skip
from sclip.config import ConfigError

PANEL = "Cluster"

_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "BLIS")


@command(PANEL)
def doctor(
    overrides: Overrides,
    config: ConfigName = "scenes",
    print_config: PrintConfig = False,
    timeout: Annotated[
        float, option("SECONDS", "maximum time that one check waits for a node to answer", parser=positive)
    ] = 30.0,
    json_file: Json = "",
) -> int:
    """Check whether this cluster can train what a config asks for, and say what to do if a check fails.

    Checks versions, clock, memory, disk, open files, the storage, MLflow and the shards on every node, then an
    all-reduce over all GPUs (nccl), or over the CPUs if there is no GPU (gloo). Exit status 0: no check fails; 1: a
    check fails; 2: the cluster or the config cannot be used.

      sclip doctor --config paper data.shards='s3://bucket/train/*.tar'
      ray job submit --working-dir . -- python jobs/doctor.py --json -
    """
    resolved = read_config(overrides, config, print_config)
    from rich.console import Console

    from sclip.launch import cluster
    from sclip.launch import doctor as examination

    out = sys.stdout
    # Ray reports lost nodes on standard output, even if its logs go elsewhere.
    with errors(ConfigError), contextlib.redirect_stdout(sys.stderr):
        with Console(stderr=True).status("connecting") as status:
            cluster.connect()
            findings = examination.examine(
                resolved, timeout, lambda check: status.update(f"examining {check}")
            )
        if json_file:
            write_json(examination.to_json(findings), json_file, out)
        if json_file != "-":
            examination.show(findings, Console(file=out))
    return 1 if examination.worst(findings) == "fail" else 0


@command(PANEL, ignore_unknown_options=True, allow_interspersed_args=False)
def benchmark(
    name: Annotated[
        Literal["scenegraph", "artefacts", "foils", "step", "stream", "scale", "towers", "evaluate"],
        argument(
            "BENCHMARK",
            "part to measure: scenegraph, artefacts, foils, step, stream, scale, towers or evaluate",
        ),
    ],
    arguments: Annotated[
        list[str],
        argument(
            "OPTION",
            "options of the chosen benchmark; sclip benchmark BENCHMARK --help lists all",
            default_factory=list,
            show_default=False,
        ),
    ],
) -> int:
    """Measure a part of sclip beside comparable tools, in one run on this machine. Print a table.

    Exit status 0: the table is printed; 2: the benchmark cannot be measured.

      sclip benchmark scenegraph   captions a second on one core; with --gold, accuracy of the graphs instead (SPICE)
      sclip benchmark artefacts    how well a classifier without images detects false captions
      sclip benchmark foils        how many foils of SugarCrepe the replacements of sclip reproduce
      sclip benchmark step         time and memory of a training step in sclip and open_clip; pauses for checkpoints
      sclip benchmark stream       speed, start and waiting of the data streams of sclip, webdataset and Ray Data
      sclip benchmark scale        CPU time per sample in each process, and which process would limit many GPUs
      sclip benchmark towers       which of open_clip's architectures train, evaluate and export with sclip
      sclip benchmark evaluate     samples a second of an evaluation, beside a loop of open_clip's parts
      sclip benchmark stream --help
    """
    # Set these variables before importing any library that reads them.
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in _LIBRARIES})
    module = importlib.import_module(f"sclip.benchmark.{name}")
    if name == "step":  # prints and writes each row as it is measured
        return int(module.main(arguments))
    # Benchmarks declare their options with argparse, because `step` also runs with only torch and open_clip installed.
    parser = argparse.ArgumentParser(prog=f"sclip benchmark {name}", allow_abbrev=False)
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures of every round to FILE; - is the standard output"
    )
    module.add_arguments(parser)
    options = parser.parse_args(arguments)
    from rich.console import Console
    from rich.progress import Progress

    from sclip.benchmark.rounds import BenchmarkError

    with errors(BenchmarkError, OSError):
        stderr = Console(stderr=True)
        with Progress(console=stderr, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("rounds", total=None)
            result = module.run(options, lambda _: progress.advance(task))
        if options.json:
            write_json(json.dumps(result.to_json(), indent=1), options.json)
    if options.json != "-":
        result.show(Console(highlight=False))
    return 0
