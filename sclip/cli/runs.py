"""Commands on runs: audit, inspect, sync, clean."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated

from sclip.cli.command import (
    STORAGE,
    Json,
    Overrides,
    Refused,
    Storage,
    TrackingUri,
    argument,
    command,
    errors,
    flag,
    option,
    positive,
    printing,
    read_config,
    repeatable,
    write_json,
)  # fmt: skip
from sclip.config import ConfigError
from sclip.storage.paths import shown

PANEL = "Runs"

Run = Annotated[str, argument("RUN", "run: its folder, its URI, or its name (run.name) in --storage")]


@command(PANEL)
def audit(
    run: Run,
    shards: Annotated[
        list[str],
        repeatable(
            "URI",
            "shards of the run; needed if they were moved, or if their URIs need credentials",
            "--shards",
        ),
    ],
    storage: Storage = STORAGE,
    all: Annotated[bool, flag("--all", "list every row; by default long lists are cut")] = False,
    json_file: Json = "",
) -> int:
    """Check that a run trained on every row exactly once, and in the step that its seed assigns to the row.

    A row is one sample in one pass over its shard. In a ledger, each worker recorded the rows of every step. The
    command counts the samples in the tars, computes the rows of each step from the seed, and compares both with the
    ledgers. It prints one line with the result, then lost shards or parts of shards, samples set aside, rows missed or
    repeated, and the first step whose rows differ from the computed ones. Exit status 0: nothing is lost, missed,
    repeated or in another step; 1: something is; 2: the run cannot be audited.

      sclip audit my-first-run
      sclip audit s3://bucket/runs/my-first-run --all --json audit.json
    """
    from sclip.run.audit import account, show
    from sclip.storage.paths import storage_path

    with errors(account.AuditError, OSError):
        folder = storage_path(run)
        if not folder.is_dir():
            folder = storage_path(storage) / "runs" / run
        result = account.audit(folder, shards)
        if json_file:
            write_json(show.to_json(folder, result), json_file)
    with printing():
        for line in show.lines(result, sys.maxsize if all else show.LISTED):
            print(line, file=sys.stderr if json_file == "-" else sys.stdout)
    return 0 if result.exact and not result.lost else 1


@command(PANEL)
def inspect(
    shard: Annotated[str, argument("SHARD", "path or URI of one shard")],
    key: Annotated[str, argument("KEY", "name of the sample in the shard, without suffix")],
    epoch: Annotated[
        int, argument("EPOCH", "epoch, counted from 0: the whole part of `epoch` in a progress line")
    ],
    overrides: Overrides,
    run: Annotated[
        str, option("RUN", "run whose config is used: its folder, its URI, or its name in --storage")
    ] = "",
    storage: Storage = STORAGE,
    config: Annotated[
        str,
        option(
            "NAME_OR_FILE",
            "config to use without --run: a name in jobs/configs, or a YAML file",
            show_default="scenes",
        ),
    ] = "",
    html: Annotated[
        Path | None, option("PAGE", "also write an HTML page, which shows the pictures too")
    ] = None,
) -> None:
    """Show what a training step saw of one sample: the randomly chosen caption, its graph, negatives, tokens, the crop.

    If the run does not train on the sample, the reason is shown. EPOCH is the number that quarantine.jsonl lists as
    `pass`. With data.weights, it counts the readings of the source that holds the shard. Seed, epoch, shard and key
    decide all random choices, so the command shows exactly what the run saw or will see. Exit status 0: the sample is
    shown; 2: there is no such sample.

      sclip inspect 00003.tar 000000391895 2 --run my-first-run --html page.html
      sclip inspect 00003.tar 000000391895 0 --config paper run.seed=1
    """
    if run and (config or overrides):
        raise Refused("--run has a config of its own: leave out --config and KEY=VALUE, or --run")
    resolved = None if run else read_config(overrides, config or "scenes")
    from sclip.data.shards import ShardError
    from sclip.model import ModelError
    from sclip.report.visit import show_visit, write_page
    from sclip.run.inspection import InspectionError, Run, inspect_sample, of_run
    from sclip.scenegraph import ParserError

    with errors(ConfigError, InspectionError, ModelError, OSError, ParserError, ShardError):
        visit = inspect_sample(Run(resolved) if resolved else of_run(run, storage), shard, key, epoch)
        if html:
            write_page(visit, html)
    show_visit(visit)
    if html:
        print(f"look at it: {shown(html)}")


@command(PANEL)
def sync(run: Run, tracking_uri: TrackingUri = "", storage: Storage = STORAGE) -> None:
    """Send a run's missing records to MLflow, and register the model of a finished run.

    RUN may also be a sweep. Records that the store already has are not sent again. A live run is refused, because it
    sends its own records. Exit status 0: the store has everything; 1: the store took only a part; 2: nothing can be
    sent.

      sclip sync my-first-run
    """
    from sclip import tracking
    from sclip.run import sync as job

    with errors(job.NotSent, status=1), errors(tracking.TrackingError, ConfigError, OSError):
        for line in job.sync(
            job.folder_of(run, storage), tracking_uri, functools.partial(print, file=sys.stderr)
        ):
            print(line)


@command(PANEL)
def clean(
    storage: Annotated[str, argument("STORAGE", "storage folder or URI of the runs (their run.storage)")],
    finished: Annotated[
        bool,
        flag(
            "--finished", "select the checkpoints of finished runs; the models and scores of these runs stay"
        ),
    ] = False,
    leftovers: Annotated[
        bool, flag("--leftovers", "select checkpoints that are half-written or damaged")
    ] = False,
    older_than: Annotated[
        float | None,
        option(
            "DAYS",
            "select whole runs without a sign of life for more than this number of days",
            parser=positive,
        ),
    ] = None,
    yes: Annotated[
        bool, flag("--yes", "remove the selected files; without --yes, the command only lists them")
    ] = False,
) -> None:
    """List every run with its state, idle time and size, and the selected files. --yes removes these files.

    Runs that gave a sign of life within the last hour are never touched.

      sclip clean ~/sclip --finished --leftovers --older-than 30 --yes
    """
    from rich.console import Console

    from sclip.run import clean as job
    from sclip.storage.paths import remove, storage_path

    folder = storage_path(storage)
    if not (folder / "runs").is_dir():
        raise Refused(f"{folder}: not a folder of runs; name the run.storage of the runs")
    table, paths = job.listed(folder, finished, leftovers, older_than)
    Console().print(table)
    for path in paths:
        if yes:
            try:
                remove(path)
            except OSError as error:
                raise Refused(f"{path}: cannot be removed ({error})") from error
        print(f"{'removed' if yes else 'would remove'} {shown(path)}")
    if paths and not yes:
        print("nothing was removed; add --yes")
