"""Commands that train: pretrain, sweep, ablation."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

from sclip.cli.command import (
    ConfigName,
    Overrides,
    PrintConfig,
    Refused,
    argument,
    command,
    errors,
    flag,
    option,
    read_config,
    repeatable,
)  # fmt: skip
from sclip.config import ConfigError
from sclip.storage.masking import mask
from sclip.storage.paths import shown

PANEL = "Train"

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
