"""Commands for trained models: promote, convert."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Annotated, Literal

from sclip.cli.command import (
    STORAGE,
    Refused,
    Storage,
    TrackingUri,
    argument,
    command,
    errors,
    flag,
    option,
    repeatable,
)  # fmt: skip
from sclip.config import Config, ConfigError, parse_gate

PANEL = "Models"
_NAMED = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:[/@](?P<version>[^/@]+))?")


@command(PANEL)
def promote(
    model: Annotated[
        str,
        argument(
            "NAME[/VERSION]",
            "version of a registered model, also as NAME@ALIAS; NAME alone is NAME@candidate",
        ),
    ],
    gate: Annotated[
        list[str],
        repeatable(
            "EXPR",
            "condition on a score; by default the conditions that the version was registered with",
            "--gate",
        ),
    ],
    tracking_uri: TrackingUri = "",
    storage: Storage = STORAGE,
    evaluation: Annotated[
        Path | None,
        option(
            "FILE", "evaluation.json of a new sclip evaluate of this version, recorded before the decision"
        ),
    ] = None,
    force: Annotated[
        bool, flag("--force", "promote the version regardless of its scores; needs --why")
    ] = False,
    rollback: Annotated[
        bool, flag("--rollback", "give the alias champion back to the version that had it before")
    ] = False,
    why: Annotated[str, option("TEXT", "reason to record with --force or --rollback")] = "",
    dry_run: Annotated[bool, flag("--dry-run", "print the decision and change nothing")] = False,
) -> int:
    """Make a version of a registered model champion if its gates (conditions on its scores) hold.

    A gate compares a recorded score of the version (by default, the one with the alias `candidate`) with a number or
    with the champion's recorded score. In a gate, `champion - interval` is the lower end of the 95 % interval of the
    champion's score. Every decision and its figures are written to the version's tags. --rollback gives the alias
    `champion` back to the version that had it before; a second --rollback goes back one more version. The MLflow store
    is --tracking-uri, else MLFLOW_TRACKING_URI, else the store in --storage. Exit status 0: the version is champion now
    (or would be, with --dry-run); 1: the version is refused; 2: nothing was decided.

      sclip promote structure-clip --gate 'relation/macro >= champion - interval'
      sclip promote structure-clip/7 --force --why 'the file of version 6 was cut'
      sclip promote structure-clip --rollback --why 'slow in production'
    """
    if force and rollback:
        raise Refused("--force promotes, --rollback takes back: choose one of them")
    if force and not why.strip():
        raise Refused("--force needs --why: only this reason will tell later why the gates did not count")
    if (force or rollback) and (gate or evaluation):
        raise Refused("--force and --rollback ignore gates: leave out --gate and --evaluation")
    if dry_run and evaluation:
        raise Refused("--evaluation is recorded, but --dry-run records nothing: use them in two commands")
    if why and not (force or rollback):
        raise Refused("--why needs --force or --rollback: otherwise the gates are the reason")
    named = _NAMED.fullmatch(model)
    if not named or (rollback and named["version"]):
        raise Refused(f"{model!r}: write NAME, NAME/VERSION or NAME@ALIAS; with --rollback, NAME alone")
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
        str,
        argument(
            "SOURCE",
            "model to convert: a run, a checkpoint, a file or folder of weights, or models:/NAME@ALIAS",
        ),
    ],
    out: Annotated[Path, argument("OUT", "folder to write into; new or empty")],
    to: Annotated[
        Literal["export", "transformers", "onnx"],
        option(
            "export|transformers|onnx",
            "format of OUT; transformers and onnx need pip install 'sclip[export]'",
        ),
    ] = "export",
    clip: Annotated[
        bool, flag("--clip", "write only the CLIP part, as a folder that open_clip loads")
    ] = False,
    model: Annotated[
        str, option("NAME", "architecture, as ViT-B-32; needed only if SOURCE does not record one")
    ] = "",
    quick_gelu: Annotated[
        Literal["auto", "on", "off"],
        option("auto|on|off", "whether the activation is QuickGELU; auto: as SOURCE records"),
    ] = "auto",
    storage: Storage = STORAGE,
    tracking_uri: TrackingUri = "",
) -> None:
    """Convert a checkpoint or weights in any layout to an export, or to a folder that another tool loads.

    SOURCE is a run (its model, or its newest checkpoint), a checkpoint (step-*), an export, models:/NAME@ALIAS,
    ARCHITECTURE:TAG, or any weights that model.pretrained reads: a state dict of open_clip or OpenAI, a checkpoint of
    open_clip's training or of Structure-CLIP's released code, or a folder that open_clip pushed to a hub. --clip writes
    a folder for open_clip.create_model_and_transforms("local-dir:FOLDER"). --to transformers writes a folder for
    CLIPModel.from_pretrained. --clip and --to transformers leave out the knowledge encoder. --to onnx writes the image
    tower, the text tower and the whole model with its knowledge encoder. For transformers and onnx, the command also
    runs the written files (onnx in onnxruntime; transformers only if it is installed), compares their outputs with the
    model's, and writes a README.md. OUT appears only when everything is written. No code in SOURCE is executed.

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
        raise Refused(f"--clip writes a folder for open_clip, --to {to} another format: choose one of them")
    # Torch warns that a single process reads the checkpoint. In this command, this is intended.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    with errors(CheckpointError, ConfigError, ModelError, OSError, ParserError, RegistryError):
        try:
            form = "clip" if clip else to
            print(job.convert(source, out.expanduser(), form, model, quick_gelu, tracking_uri, storage))
        except ModelError as error:
            raise ModelError(_with_own_options(str(error), model)) from error


def _with_own_options(message: str, model: str) -> str:
    """Name the options of `convert` instead of config keys in the message of a model error."""
    message = re.sub(r"model\.quick_gelu=['\"]?(\w+)['\"]?", r"--quick-gelu \1", message)
    return re.sub(r"model\.name=['\"]?([^\s'\":;]+)['\"]?", r"--model \1", message) if model else message
