"""Commands for models: evaluate, blend, fetch benchmarks, promote, convert."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Annotated, Literal

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
from sclip.config import Config, ConfigError, EvaluateConfig, parse_gate
from sclip.storage.paths import shown

PANEL = "Models"
_EVALUATE = EvaluateConfig()
_NAMED = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:[/@](?P<version>[^/@]+))?")


@command(PANEL)
def evaluate(
    models: Annotated[list[str], argument("MODEL", "what to measure")],
    benchmark: Annotated[list[str], repeatable("KIND=FILE", "one benchmark", "--benchmark")],
    images: Annotated[list[str], repeatable("FOLDER", "pictures of each --benchmark, or of all", "--images")],
    exclude: Annotated[
        list[str], repeatable("FILE", "leave out what was trained on: a list of sclip exclude", "--exclude")
    ],
    table: Annotated[
        list[str], repeatable("FILE", "all scores beside published ones: .tex, .md or .html", "--table")
    ],
    data_keys: DataKeys,
    suite: Annotated[str, option("NAME_OR_FILE", "the benchmarks")] = "",
    root: Root = _EVALUATE.root,
    out: Annotated[Path, option("FOLDER", "for the results")] = Path("evaluation"),
    partial: Annotated[bool, flag("--partial", "score what is there where pictures are missing")] = False,
    device: Annotated[str, option("DEVICE", "cpu, cuda or cuda:1")] = "cpu",
    actors: Annotated[
        int, option("N", "Ray actors that encode, on nodes that see the same files; 0: this process", min=0)
    ] = 0,
    batch_size: Annotated[int, option("N", "images or captions at a time", min=1)] = _EVALUATE.batch_size,
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Measure one or several models on benchmarks.

    MODEL is a run, a checkpoint (step-*), an export or weights (file or folder), ARCHITECTURE:TAG of open_clip (no tag:
    random weights), or models:/NAME@ALIAS; an evaluation.json stands for a model that was measured before. A suite is a
    YAML file or a name: aro, sugarcrepe, winoground, retrieval, zero-shot, paper or all (their files lie below --root,
    see sclip fetch). It may be left out if every MODEL is an evaluation.json. Prints a table with 95 % intervals and
    chance, and writes evaluation.json and report.html for each model. Several models are compared with the first.
    --table writes the table of a paper: LaTeX, Markdown or HTML, by the file's suffix. Exit status: 0 done, 1 failed
    while running, 2 not started.

      sclip evaluate my-run --suite paper --out evaluation
      sclip evaluate ViT-B-32:openai my-run --suite aro --device cuda
      sclip evaluate before/evaluation.json my-run --suite field --table field.tex --table field.html
      sclip evaluate my-run --benchmark sugarcrepe=swap_obj.json --images val2017
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Refused(f"--device {device}: cpu, cuda or cuda:1")
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
    start: Annotated[str, argument("START", "the weights that training started from")],
    trained: Annotated[str, argument("TRAINED", "what it made of them; both as sclip evaluate takes MODEL")],
    alpha: Annotated[list[str], repeatable("A,..", "blends to measure, instead of every 0.1", "--alpha")],
    exclude: Annotated[
        list[str], repeatable("FILE", "leave out what was trained on: a list of sclip exclude", "--exclude")
    ],
    gate: Annotated[
        list[str], repeatable("EXPR", "with --register: what makes the version champion", "--gate")
    ],
    suite: Annotated[str, option("NAME_OR_FILE", "benchmarks of the development split, which chooses a")],
    report: Annotated[str, option("NAME_OR_FILE", "benchmarks of the split that is reported")],
    gained: Annotated[
        str, option("BENCHMARK/SCORE", "of the development split: what is to rise; joined by + a mean")
    ],
    kept: Annotated[str, option("BENCHMARK/SCORE", "of the development split: what is to stay")],
    keep: Annotated[float, option("SHARE", "least share of the start's --kept")] = 0.98,
    root: Root = _EVALUATE.root,
    name: Annotated[
        str, option("NAME", "of the folder and the MLflow run; by default the time", show_default=False)
    ] = "",
    register: Annotated[
        str, option("NAME", "register the blend as a version of this model", show_default=False)
    ] = "",
    device: Annotated[str, option("DEVICE", "cpu, cuda or cuda:1")] = "cpu",
    actors: Annotated[int, option("N", "Ray actors that encode; 0: this process", min=0)] = 0,
    batch_size: Annotated[int, option("N", "images or captions at a time", min=1)] = _EVALUATE.batch_size,
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Blend a trained model with its start, so that it keeps what the start knew: (1 - a) * start + a * trained.

    Every blend is measured on --suite. A blend qualifies if its --kept score is at least --keep times the start's. Of
    these, the one with the highest --gained score is taken and measured on --report, beside the start and the trained
    model. --suite and --report must not share cases. a = 0 and a = 1, the models themselves, are always measured. The
    folder STORAGE/sweeps/NAME gets blend.html with the curve, the comparison, and the model, which the folder's name
    loads. Exit status: 0 done, 1 failed while running, 2 not started.

      sclip blend ViT-B-32:openai my-run --suite development.yaml --report all \\
          --gained relation/macro --kept coco/text_to_image_r1 --register structure-clip
    """
    if gate and not register:
        raise Refused("--gate judges a registered version: it goes with --register")
    quiet_ray()
    from rich.console import Console

    from sclip.run import blend as job

    console = Console(highlight=False)
    with errors(*job.NOT_STARTED):
        asked = job.Blend(
            start, trained, suite, report, gained, kept, keep, job.alphas(alpha), name, register, tuple(gate),
            device, actors, batch_size,
        )  # fmt: skip
        ready = job.prepare(asked, root, exclude, tracking_uri, storage)
    with errors(*job.ERRORS, status=1):
        lines = job.run(asked, ready, console)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


@command(PANEL)
def fetch(
    suite: Annotated[str, argument("SUITE", "a name or a file")] = "all", root: Root = _EVALUATE.root
) -> int:
    """Say where to get benchmarks, and check the files that are there; nothing is downloaded.

    Prints the paper, the license and the files of each benchmark of SUITE, with the place of each file below --root.
    Reads and counts the files that are there, compares the counts with the published ones, and looks for each picture.
    Exit status: 0 everything is there, 1 something is missing or differs, 2 there is no such suite.
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
                for place, origin in source.files:
                    print(f"    {Path(root).expanduser() / place}\n        from {origin}")
    return 0 if complete else 1


@command(PANEL)
def promote(
    model: Annotated[str, argument("NAME[/VERSION]", "the registered model; NAME@ALIAS is taken too")],
    gate: Annotated[
        list[str], repeatable("EXPR", "instead of the gates that the version was registered with", "--gate")
    ],
    tracking_uri: TrackingUri = "",
    storage: Storage = STORAGE,
    evaluation: Annotated[
        Path | None,
        option("FILE", "evaluation.json of this version, measured anew (sclip evaluate): recorded first"),
    ] = None,
    force: Annotated[bool, flag("--force", "promote whatever the scores; needs --why")] = False,
    rollback: Annotated[bool, flag("--rollback", "give the alias back to the champion before")] = False,
    why: Annotated[str, option("TEXT", "recorded with --force or --rollback")] = "",
    dry_run: Annotated[bool, flag("--dry-run", "say what would be done, change nothing")] = False,
) -> int:
    """Make a registered version champion if its gates hold.

    The version, by default the one with the alias `candidate`, is judged against the champion by the recorded scores of
    both. Every decision and its figures are written to the version's tags. --rollback gives the alias back to the
    version that was champion before; repeated, it goes further back. The store is --tracking-uri, else
    MLFLOW_TRACKING_URI, else the one in --storage. Exit status: 0 the version is champion now (or would be), 1 it is
    refused, 2 nothing was decided.

      sclip promote structure-clip --gate 'relation/macro >= champion - interval'
      sclip promote structure-clip/7 --force --why 'the file of version 6 was cut'
      sclip promote structure-clip --rollback --why 'slow in production'
    """
    if force and rollback:
        raise Refused("--force promotes and --rollback takes back: one of them")
    if force and not why.strip():
        raise Refused(
            "--force needs --why: the reason is all that will say later why the gates did not count"
        )
    if (force or rollback) and (gate or evaluation):
        raise Refused("--force and --rollback ask no gates: leave --gate and --evaluation out")
    if dry_run and evaluation:
        raise Refused("--evaluation is recorded, --dry-run records nothing: first one, then the other")
    if why and not (force or rollback):
        raise Refused("--why is recorded with --force or --rollback only: the gates are the reason otherwise")
    named = _NAMED.fullmatch(model)
    if not named or (rollback and named["version"]):
        raise Refused(f"{model!r}: NAME, NAME/VERSION or NAME@ALIAS is meant, with --rollback NAME")
    name, version = named["name"], named["version"] or "candidate"
    from sclip import registry, tracking
    from sclip.evaluate.result import Evaluation, EvaluationError

    with errors(registry.RegistryError, EvaluationError, ConfigError, tracking.TrackingError):
        for expression in gate:
            parse_gate(expression, "--gate")
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or tracking.store_uri(Config(), storage)
        # By default MLflow retries for minutes.
        with tracking.settings(MLFLOW_HTTP_REQUEST_TIMEOUT=30, MLFLOW_HTTP_REQUEST_MAX_RETRIES=1):
            client = registry.connect(uri)
            if rollback:
                outcome = registry.roll_back(client, name, why, dry_run=dry_run)
            elif force:
                outcome = registry.promote_by_hand(client, name, version, why, dry_run=dry_run)
            else:
                if evaluation:
                    measured = Evaluation.read(evaluation)
                    registry.record(client, registry.find(client, name, version), measured)
                outcome = registry.decide(client, name, version, gate, dry_run=dry_run)
    print("\n".join(outcome.lines()))
    if dry_run:
        print("nothing was changed (--dry-run)")
    return 0 if outcome.promoted else 1


@command(PANEL)
def convert(
    source: Annotated[
        str, argument("SOURCE", "a run, a checkpoint, a file or a folder, or models:/NAME@ALIAS")
    ],
    out: Annotated[Path, argument("OUT", "a folder, new or empty")],
    to: Annotated[
        Literal["export", "transformers", "onnx"],
        option("export|transformers|onnx", "what to write; the last two need pip install 'sclip[export]'"),
    ] = "export",
    clip: Annotated[bool, flag("--clip", "write the CLIP part alone, as open_clip loads it")] = False,
    model: Annotated[str, option("NAME", "architecture, where SOURCE does not say it")] = "",
    quick_gelu: Annotated[
        Literal["auto", "on", "off"], option("auto|on|off", "activation, where SOURCE does not say it")
    ] = "auto",
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Convert a checkpoint or weights in any layout to an export, or to a folder that another tool loads.

    SOURCE is a run (its model, or its newest checkpoint), a checkpoint (step-*), an export, models:/NAME@ALIAS,
    ARCHITECTURE:TAG, or what model.pretrained reads: open_clip's or OpenAI's state dict, a checkpoint of open_clip's
    training or of Structure-CLIP's released code, a folder that open_clip pushed to a hub. --clip writes a folder for
    open_clip.create_model_and_transforms("local-dir:FOLDER"), and --to transformers one for CLIPModel.from_pretrained;
    neither holds the knowledge encoder. --to onnx writes the image tower, the text tower and the whole model with its
    knowledge encoder. The folders of --to transformers and --to onnx are loaded, compared with the model and described
    in a README.md. OUT appears when all is written, or not at all. Nothing in a source is executed.

      sclip convert ~/sclip/runs/my-run/step-00000500 exported
      sclip convert clip_checkpoint.pt exported --model ViT-B-32 --quick-gelu on
      sclip convert ~/sclip/runs/my-run clip --clip
      sclip convert models:/structure-clip@champion onnx --to onnx
    """
    from sclip.model import ModelError
    from sclip.registry import RegistryError
    from sclip.run import convert as job
    from sclip.scenegraph import ParserError
    from sclip.train.manifest import CheckpointError

    if clip and to != "export":
        raise Refused(f"--clip writes a folder for open_clip, --to {to} another one: one of them")
    # Torch warns that a single process reads the checkpoint, as it does in this command.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    with errors(CheckpointError, ConfigError, ModelError, OSError, ParserError, RegistryError):
        try:
            form = "clip" if clip else to
            print(job.convert(source, out.expanduser(), form, model, quick_gelu, tracking_uri, storage))
        except ModelError as error:
            raise ModelError(_with_own_options(str(error), model)) from error


def _with_own_options(told: str, model: str) -> str:
    """Return a model error's message with the config keys replaced by the options of `convert`."""
    told = re.sub(r"model\.quick_gelu=['\"]?(\w+)['\"]?", r"--quick-gelu \1", told)
    return re.sub(r"model\.name=['\"]?([^\s'\":;]+)['\"]?", r"--model \1", told) if model else told
