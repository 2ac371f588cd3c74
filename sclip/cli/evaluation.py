"""Commands for measuring models: evaluate, blend, fetch benchmarks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from sclip.cli.command import (
    STORAGE,
    DataKeys,
    Refused,
    Root,
    Storage,
    TrackingUri,
    argument,
    command,
    errors,
    flag,
    option,
    quiet_ray,
    read_data,
    repeatable,
)  # fmt: skip
from sclip.config import EvaluateConfig
from sclip.storage.paths import shown

PANEL = "Models"
_EVALUATE = EvaluateConfig()

Exclude = Annotated[
    list[str],
    repeatable(
        "FILE",
        "leave out the benchmark pictures that are on this list of training pictures (from sclip exclude)",
        "--exclude",
    ),
]
Device = Annotated[str, option("DEVICE", "device that encodes: cpu, cuda or cuda:1")]
Actors = Annotated[
    int,
    option(
        "N", "Ray actors that encode; all nodes must see the same files; 0: encode in this process", min=0
    ),
]
BatchSize = Annotated[int, option("N", "images or captions that are encoded at a time", min=1)]


def _check_device(device: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refused(f"--device {device}: cpu, cuda or cuda:1")


@command(PANEL)
def evaluate(
    models: Annotated[
        list[str],
        argument(
            "MODEL",
            "run, checkpoint, export, weights, ARCHITECTURE:TAG, models:/NAME@ALIAS or evaluation.json",
        ),
    ],
    benchmark: Annotated[
        list[str],
        repeatable(
            "KIND=FILE",
            "benchmark to measure: its kind and its file, as sugarcrepe=swap_obj.json",
            "--benchmark",
        ),
    ],
    images: Annotated[
        list[str],
        repeatable(
            "FOLDER",
            "folder with the pictures: one for all --benchmark options, or one for each in their order",
            "--images",
        ),
    ],
    exclude: Exclude,
    table: Annotated[
        list[str],
        repeatable("FILE", "write all scores beside published ones to FILE: .tex, .md or .html", "--table"),
    ],
    data_keys: DataKeys,
    suite: Annotated[
        str, option("NAME_OR_FILE", "suite of benchmarks to measure: a name, as aro or all, or a YAML file")
    ] = "",
    root: Root = _EVALUATE.root,
    out: Annotated[Path, option("FOLDER", "folder to write the results into")] = Path("evaluation"),
    partial: Annotated[
        bool,
        flag("--partial", "if pictures are missing, score the remaining cases instead of refusing to start"),
    ] = False,
    device: Device = "cpu",
    actors: Actors = 0,
    batch_size: BatchSize = _EVALUATE.batch_size,
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Measure one or several models on benchmarks.

    MODEL is a run, a checkpoint (step-*), an export or weights (file or folder), ARCHITECTURE:TAG of open_clip (no tag:
    random weights), or models:/NAME@ALIAS; an evaluation.json holds the scores of a model measured before. A suite is a
    YAML file or a name: aro, sugarcrepe, sugarcrepe-pp, winoground, whatsup, pairs, negbench, hard-positives,
    retrieval, long-captions, zero-shot, paper, field or all (their files lie below --root, see sclip fetch). --suite
    may be left out if every MODEL is an evaluation.json. The command prints a table of scores with 95 % intervals,
    beside the scores of chance, and writes evaluation.json and report.html for each model that it measures. Several
    models are compared with the first. --table writes the table of a paper: LaTeX, Markdown or HTML, by the file's
    suffix. Exit status 0: done; 1: failed while running; 2: nothing was started because an argument, a model or a file
    cannot be used.

      sclip evaluate my-run --suite paper --out evaluation
      sclip evaluate ViT-B-32:openai my-run --suite aro --device cuda
      sclip evaluate before/evaluation.json my-run --suite field --table field.tex --table field.html
      sclip evaluate my-run --benchmark sugarcrepe=swap_obj.json --images val2017
    """
    _check_device(device)
    measured = [model for model in models if not model.endswith(".json")]
    if (suite and benchmark) or (measured and not suite and not benchmark):
        raise Refused("name the benchmarks: --suite NAME_OR_FILE, or --benchmark KIND=FILE (repeatable)")
    if images and suite:
        raise Refused("--images goes with --benchmark; a suite says where its images are")
    for text in benchmark:
        if not all(text.partition("=")):
            raise Refused(f"--benchmark {text}: write KIND=FILE")
    tables = [Path(file).expanduser() for file in table]
    for file in tables:
        if file.suffix not in (".tex", ".md", ".html"):
            raise Refused(f"--table {file}: name a file that ends in .tex, .md or .html")
    quiet_ray()
    from rich.console import Console

    from sclip.evaluate.table import show
    from sclip.run import evaluate as job

    console = Console(highlight=False)
    with errors(*job.NOT_STARTED):
        known = job.read_evaluations([model for model in models if model not in measured])
        entries = job.read_entries(suite, root, benchmark, images, read_data(data_keys))
        tasks = job.read_tasks(entries, exclude, partial) if measured else []
        scorers = job.open_scorers(measured, device, actors, tracking_uri, storage) if measured else []
        for folder in ([out] if measured else []) + [file.parent for file in tables]:
            folder.mkdir(parents=True, exist_ok=True)
    with errors(*job.ERRORS, status=1):
        done = job.evaluate(
            tasks, models, scorers, out, suite or ", ".join(benchmark), partial=partial, device=device, actors=actors,
            batch_size=batch_size, known=known,
        )  # fmt: skip
    show(done.evaluations, done.comparison, console)
    if done.not_compared and not tables:
        raise Refused(done.not_compared, 1)
    if done.not_compared:
        console.print(f"no comparison.html: {done.not_compared}", soft_wrap=True, markup=False)
    with errors(*job.ERRORS, status=1):
        pages = [*done.pages, *job.write_tables(done.evaluations, [entry.name for entry in entries], tables)]
    for page in pages:
        console.print(f"look at it: {shown(page)}", soft_wrap=True, markup=False)


@command(PANEL)
def blend(
    start: Annotated[
        str, argument("START", "model before training, in any form that MODEL of sclip evaluate may have")
    ],
    trained: Annotated[
        str, argument("TRAINED", "model after training, in any form that MODEL of sclip evaluate may have")
    ],
    alpha: Annotated[
        list[str],
        repeatable(
            "A,..", "values of a (share of the trained model) to measure; by default 0, 0.1, .., 1", "--alpha"
        ),
    ],
    exclude: Exclude,
    gate: Annotated[
        list[str],
        repeatable(
            "EXPR", "condition that makes the version of --register champion, as in sclip promote", "--gate"
        ),
    ],
    suite: Annotated[
        str, option("NAME_OR_FILE", "suite of the development split, whose scores choose the blend")
    ],
    report: Annotated[
        str, option("NAME_OR_FILE", "suite of the reported split, on which the chosen blend is measured")
    ],
    gained: Annotated[
        str, option("BENCHMARK/SCORE", "score of --suite that should rise; A/X+B/Y is the mean of two scores")
    ],
    kept: Annotated[
        str,
        option("BENCHMARK/SCORE", "score of --suite that should not fall; A/X+B/Y is the mean of two scores"),
    ],
    keep: Annotated[
        float,
        option(
            "SHARE", "minimum share of the start model's --kept score that the blend must reach, from 0 to 1"
        ),
    ] = 0.98,
    root: Root = _EVALUATE.root,
    name: Annotated[
        str,
        option(
            "NAME",
            "name of the output folder and the MLflow run; by default made from the time",
            show_default=False,
        ),
    ] = "",
    register: Annotated[
        str,
        option(
            "NAME",
            "register the chosen blend in MLflow as a new version of the model NAME; by default nothing is registered",
            show_default=False,
        ),
    ] = "",
    device: Device = "cpu",
    actors: Actors = 0,
    batch_size: BatchSize = _EVALUATE.batch_size,
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Blend the weights of a trained model with those of its start model: (1 - a) * start + a * trained.

    A blend keeps more of what the start model knew. Every blend is measured on --suite, with the two models themselves
    as a = 0 and a = 1. Of those whose --kept score is at least --keep times the start model's, the one with the highest
    --gained score is chosen, and measured on --report beside the two models. --suite and --report must not share cases.
    The chosen model, the comparison, and blend.html with the curve are written to STORAGE/sweeps/NAME.
    Other commands load the model by the name of this folder. Exit status 0: done; 1: failed while running; 2: nothing
    was started because an argument, a model or a file cannot be used.

      sclip blend ViT-B-32:openai my-run --suite development.yaml --report all \\
          --gained relation/macro --kept coco/text_to_image_r1 --register structure-clip
    """
    _check_device(device)
    if gate and not register:
        raise Refused("--gate needs --register: it judges a registered version")
    quiet_ray()
    from rich.console import Console

    from sclip.run import blend as job

    console = Console(highlight=False)
    with errors(*job.NOT_STARTED):
        request = job.Blend(
            start, trained, suite, report, gained, kept, keep, job.alphas(alpha), name, register, tuple(gate),
            device, actors, batch_size,
        )  # fmt: skip
        ready = job.prepare(request, root, exclude, tracking_uri, storage)
    with errors(*job.ERRORS, status=1):
        lines = job.run(request, ready, console)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


@command(PANEL)
def fetch(
    suite: Annotated[
        str, argument("SUITE", "suite of benchmarks: a name, as aro or all, or a YAML file")
    ] = "all",
    root: Root = _EVALUATE.root,
) -> int:
    """Say where to get the files of benchmarks, and check the files that are present; nothing is downloaded.

    Prints the paper, the license and the files of each benchmark of SUITE, with the place of each file below --root.
    Reads the files that are present, counts the cases, compares the counts with the published ones, and looks for each
    picture. Exit status 0: everything is present; 1: something is missing or differs; 2: there is no such suite.
    """
    from sclip.data.shards import ShardError
    from sclip.evaluate import suite as suites
    from sclip.evaluate.benchmarks import BenchmarkDataError
    from sclip.evaluate.sources import SOURCES, examined

    complete = True
    with errors(BenchmarkDataError, ShardError, OSError):
        for entry in suites.read(suite, root):
            state = examined(entry)
            complete = complete and state.complete
            print(
                f"{entry.name} ({entry.kind}): {'complete' if state.complete else 'INCOMPLETE'}: {state.told}"
            )
            if source := SOURCES.get(entry.name):
                print(f"    paper    {source.paper}\n    licence  {source.licence}")
                for path, origin in source.files:
                    print(f"    {Path(root).expanduser() / path}\n        from {origin}")
    return 0 if complete else 1
