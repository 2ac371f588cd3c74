"""Commands for runs: pretrain, sweep, ablation, audit, inspect, sync, clean."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path
from typing import Annotated

from sclip.cli.command import (
    STORAGE,
    ConfigName,
    Json,
    Overrides,
    PrintConfig,
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
from sclip.storage.masking import mask
from sclip.storage.paths import shown

PANEL = "Train"

Run = Annotated[str, argument("RUN", "run: its folder, its URI, or its name (run.name) in --storage")]
AtOnce = Annotated[int, option("N", "maximum runs at the same time; 0: as many as fit on the cluster", min=0)]


@command(PANEL)
def pretrain(
    overrides: Overrides,
    config: ConfigName = "scenes",
    print_config: PrintConfig = False,
    plan: Annotated[
        bool,
        flag("--plan", "print the run's resources, memory, time and cost on this cluster; start nothing"),
    ] = False,
    prices: Annotated[
        Path | None,
        option(
            "FILE",
            "YAML file with the hourly price of each node type; sclip/launch/plan/price_table.py has the format",
        ),
    ] = None,
    cluster: Annotated[
        Path | None,
        option(
            "FILE",
            "with --plan: plan for the node types in this file of Ray's cluster launcher, without any cluster; "
            "sclip/launch/README.md has the format",
        ),
    ] = None,
    rates: Annotated[
        str,
        option(
            "STAGE=N,..",
            "measured samples per second of worker, encoder or reader, for the plan",
            show_default=False,
        ),
    ] = "",
) -> int:
    """Train Structure-CLIP on WebDataset shards and register the model.

    The first SIGTERM or Ctrl-C writes a checkpoint and ends the run; the next one ends the run at once. The same
    command resumes the run. While a run is alive, a second start under its name is refused, and the message says where
    that run is running.

    Exit status 0: done; 1: failed; 2: nothing was started because of a mistake in the command or the config;
    130: interrupted; 143: stopped by SIGTERM.

      sclip pretrain                                     train on the generated scenes
      sclip pretrain data.shards='/data/{000..127}.tar'  train on your own shards
      sclip pretrain --config paper train.num_workers=8
      sclip pretrain --plan --rates worker=900,encoder=120
      sclip pretrain --plan --cluster nodes.yaml train.micro_batch=128
      ray job submit --working-dir . -- python jobs/pretrain.py --config paper
    """
    resolved = read_config(overrides, config, print_config)
    if cluster and not plan:
        raise Refused(f"--cluster {cluster}: only with --plan; a run uses the cluster that it is started on")
    from rich.console import Console

    from sclip.launch import node_types
    from sclip.launch import plan as planning
    from sclip.run import logs, stopping
    from sclip.run import pretrain as job
    from sclip.run import summary as summaries

    as_json = resolved.run.log_format == "json"
    console = logs.json_console(sys.stdout) if as_json else Console(stderr=False)
    try:
        with errors(*job.ERRORS, status=1), errors(ConfigError):
            priced = planning.price_table.read(prices) if prices else None
            nodes = node_types.of_file(cluster) if cluster else ()
            options = job.PlanOptions(planning.rates.given(rates), priced, nodes)
            if plan:
                planning.show(job.plan(resolved, options), console)
                return 0
            summary = job.pretrain(resolved, console, options)
    except (Refused, KeyboardInterrupt, stopping.Stopped) as error:
        if not as_json:
            raise
        logging.getLogger("sclip").error("%s", mask(str(error)) or "interrupted")
        return error.status if isinstance(error, Refused) else stopping.left(error)
    summaries.show(summary, resolved, console)
    return 0


@command(PANEL, "interrupted; run the same command to continue")
def sweep(
    name: Annotated[str, argument("NAME", "name of the sweep; its runs are NAME-00000, NAME-00001, ...")],
    overrides: Overrides,
    grid: Annotated[
        list[str],
        repeatable("KEY=V1,V2,..", "config key and its values; every combination is tried", "--grid"),
    ],
    random: Annotated[
        list[str],
        repeatable(
            "KEY=DOMAIN",
            "config key and where to draw its values: uniform(a,b), loguniform(a,b), randint(a,b), choice(a,b,..)",
            "--random",
        ),
    ],
    config: ConfigName = "scenes",
    print_config: PrintConfig = False,
    samples: Annotated[int, option("N", "number of random draws for each point of --grid", min=1)] = 1,
    at_once: AtOnce = 0,
    score: Annotated[
        str,
        option("NAME", "score by which runs are ranked; by default the main score of the first benchmark"),
    ] = "",
) -> int:
    """Run a grid search or a random search over config keys with Ray Tune; each trial is a child run in MLflow.

    After a stop, the same command resumes the sweep. A sweep ends with a table, the best run first, and a page that
    compares the eight best runs. Exit status 0: every trial is done; 1: a trial failed; 2: nothing was started because
    of a mistake in the command or the config.

      sclip sweep lambda --grid model.kee.weight=0.1,0.2,0.5 --config paper
      sclip sweep rates --random 'train.learning_rate=loguniform(1e-6,1e-4)' \\
          --samples 8 run.seed=1
    """
    resolved = read_config(overrides, config, print_config)
    from rich.console import Console

    from sclip.report import sweep as report
    from sclip.run import pretrain as job
    from sclip.run import search_space
    from sclip.run import sweep as sweeps

    console = Console()
    with errors(*job.ERRORS, status=1), errors(ConfigError):
        space = search_space.space(name, resolved, grid, random)
        trials = sweeps.run(sweeps.Sweep(name, resolved, space, samples, at_once), console)
    score = score or next(iter(next((trial.scores for trial in trials if trial.scores), {})), "")
    report.show(trials, score, console)
    storage = Path(resolved.run.storage).expanduser().absolute()
    best = [trial for trial in report.ranked(trials, score) if trial.scores][: sweeps.COMPARED]
    for page in sweeps.pages(best, storage, storage / "sweeps" / name, f"{name}, the best"):
        console.print(f"look at it: {shown(page)}", soft_wrap=True, markup=False, highlight=False)
    return 1 if any(trial.error for trial in trials) else 0


@command(PANEL, "interrupted; run the same command to continue")
def ablation(
    ablation: Annotated[
        str,
        argument(
            "ABLATION",
            "ablation to run: a name in jobs/configs/ablation, or a YAML file",
            default_factory=lambda: "scenes",
            show_default="scenes",
        ),
    ],
    overrides: Overrides,
    name: Annotated[
        str,
        option(
            "NAME",
            "name of the sweep; the names of its runs begin with NAME",
            show_default="ablation-ABLATION",
        ),
    ] = "",
    row: Annotated[list[str] | None, option("ROW", "train only this row of the ablation; repeatable")] = None,
    seed: Annotated[
        list[int] | None,
        option("N", "train with this seed instead of the seeds in the ablation's file; repeatable"),
    ] = None,
    at_once: AtOnce = 0,
) -> int:
    """Train every row of an ablation with each of its seeds; print a table of the scores and published figures.

    The overrides hold for every row. After a stop, the same command resumes the ablation. The command writes
    ablation.html into STORAGE/sweeps/NAME, with the table and the scores of every seed. It also writes the table as
    ablation.md and ablation.json, and a page that compares the rows for the first seed. In an ablation with a start
    row, training of the other rows begins with this row's weights; ablation.html shows which share of the start row's
    score each of them kept. Exit status 0: every run is done; 1: a run failed; 2: nothing was started because of a
    mistake in the command or the config.

      sclip ablation             generated scenes: the paper's five rows, replacements, hard positives, caption parts
      sclip ablation keeping     scores kept after tuning on five of eight colors: plain, distillation, LoRA, blends
      sclip ablation encoder     triples (K), weight (lambda), depth and form of the knowledge encoder
      sclip ablation paper data.shards='shards/*.tar' evaluate.root=~/benchmarks
      sclip ablation field data.shards=.. evaluate.root=..   other published recipes, beside their figures
    """
    if "=" in ablation:
        ablation, overrides = "scenes", [ablation, *overrides]
    from rich.console import Console

    from sclip.run import ablation as job
    from sclip.run import pretrain

    console = Console()
    with errors(*pretrain.ERRORS, status=1), errors(ConfigError):
        done = job.run(ablation, overrides, console, name, row or [], seed or [], at_once)
    job.show(done.ablation, done.cells, console)
    failed = [trial for trial in done.trials if trial.error]
    for line in [
        *(f"{trial.name} failed: {trial.error}" for trial in failed),
        *(f"look at it: {shown(file)}" for file in done.pages),
    ]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return 1 if failed else 0


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
