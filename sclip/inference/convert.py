"""Convert weights of any layout, or a checkpoint of a run, to our export or to a folder for another tool."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sclip.config import Config, KEEConfig, ModelConfig
from sclip.config.loader import from_tree
from sclip.inference.scorer import PARSER_FILE, Scorer
from sclip.model import ModelError, StructureCLIP
from sclip.model.architecture import with_quick_gelu
from sclip.model.build import assemble, check_fit, resolved
from sclip.model.clip_model import check_clip_model, write_clip_model
from sclip.model.export import export, export_clip, export_state, load_exported
from sclip.model.onnx_files import write_onnx
from sclip.model.structure_clip import CLIP_PREFIX
from sclip.model.weights import CONFIG_FILE, WEIGHTS_FILE, read
from sclip.storage.paths import StoragePath, address, cached_copy, shown, storage_path
from sclip.train import checkpoint, manifest
from sclip.train.manifest import CheckpointError
from sclip.train.run_folder import RunFolder

__all__ = ["Form", "Source", "convert", "opened", "require_new"]

Form = Literal["export", "clip", "transformers", "onnx"]

_SOME_BIAS = -10.0  # as in SigLIP; the loaded weights replace it


@dataclass(frozen=True)
class Source:
    """A model, with the parser that prepares its captions."""

    model: StructureCLIP
    notes: tuple[str, ...] = ()
    """Differences between the model and its source, in words."""
    parser: Path | None = None
    """Parser file, if the source is an export."""
    spacy_model: str | None = None
    """spaCy pipeline, if the source is a checkpoint of a run."""


def require_new(folder: Path) -> None:
    """Raise ModelError unless the output folder of `convert` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: not empty; name a new folder")


def convert(source: Source, folder: Path, form: Form = "export", card: str = "") -> str:
    """Write a model into a new or empty folder; return one line that says what was written.

    Args:
        source: the model.
        folder: new or empty folder. All files appear together, after the last check.
        form: "export" is for `sclip.load`, "clip" for open_clip, "transformers" for the `CLIPModel` of transformers,
            "onnx" for onnxruntime. The outputs of the last two are compared with the model's.
        card: text of README.md in the folder; "" writes no README.md.

    Raises ModelError.
    """
    require_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # An existing empty folder may be a mount. A mount cannot be replaced, so the files are moved into it.
    parent = folder if folder.is_dir() else folder.parent
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=parent) as temporary:
        partial = Path(temporary) / folder.name
        partial.mkdir()
        check = _write(source, partial, form)
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")
        if folder.is_dir():
            for path in partial.iterdir():
                path.rename(folder / path.name)
        else:
            partial.rename(folder)
    return f"{shown(folder)}: {_summary(source, form)}{check}"


def _write(source: Source, folder: Path, form: Form) -> str:
    model = source.model
    if form == "onnx":
        return f"; largest difference of onnxruntime {write_onnx(model, folder):.1e}"
    if form == "transformers":
        difference = check_clip_model(model, write_clip_model(model, folder))
        if difference is None:
            return "; not compared, as transformers is not installed (pip install 'sclip[export]')"
        return f"; largest difference of transformers {difference:.1e}"
    if form == "clip":
        export_clip(model, folder)
    elif source.spacy_model is not None:
        Scorer(model, source.spacy_model).save(folder)
    else:
        export(model, folder)
        if source.parser:
            shutil.copyfile(source.parser, folder / PARSER_FILE)
    return ""


def _summary(source: Source, form: Form) -> str:
    model, is_clip = source.model, form in ("clip", "transformers")
    tensors = [n for n in export_state(model) if not is_clip or n.startswith(CLIP_PREFIX)]
    activation = "QuickGELU" if with_quick_gelu(model.config.name) else "GELU"
    line = f"{len(tensors)} tensors, {model.config.name} ({activation})"
    notes = list(source.notes)
    if model.kee is None:
        line += ", without a knowledge encoder"
    elif is_clip:
        notes.insert(0, "left out: the knowledge encoder")
    else:
        line += f", knowledge encoder of {model.config.kee.layers} layers"
    return "; ".join([line, *notes])


def opened(source: StoragePath, name: str = "", quick_gelu: Literal["auto", "on", "off"] = "auto") -> Source:
    """Return the model that a path holds, in eval mode on the CPU.

    Args:
        source: a run, a checkpoint of a run (step-*), or anything that `model.pretrained` reads.
        name: architecture of a file of weights; "" takes the architecture that the file records.
        quick_gelu: the value of `model.quick_gelu`.

    Raises ModelError or CheckpointError.
    """
    if (source / "model" / WEIGHTS_FILE).is_file():  # a finished run
        source = source / "model"
    step = source if manifest.is_complete(source) else None
    if source.is_dir() and any(source.glob("step-*")):
        latest = RunFolder(source).latest()
        step = latest[0] if latest else None
    if step is not None:
        # `address` is absolute: a relative `step` may be the folder name alone, without its run folder.
        return _from_run(step, RunFolder(storage_path(address(step)).parent))
    folder = cached_copy(source) if source.exists() else Path(address(source))
    if (folder / WEIGHTS_FILE).is_file() and (folder / CONFIG_FILE).is_file():
        parser = folder / PARSER_FILE
        return Source(load_exported(folder), parser=parser if parser.is_file() else None)
    weights = read(folder, str(source))
    architecture = name or weights.architecture
    if not architecture:
        raise ModelError(f"{source}: records no architecture; name it with --model")
    if any(tensor.startswith("kee.") for tensor in weights.tensors):
        raise ModelError(f"{source}: the export lacks {CONFIG_FILE}, which describes its knowledge encoder")
    bias = _SOME_BIAS if CLIP_PREFIX + "logit_bias" in weights.tensors else 0.0
    without = KEEConfig(enabled=False)
    config = ModelConfig(
        name=architecture,
        quick_gelu=quick_gelu,
        logit_bias=bias,
        context_length=weights.context_length,
        kee=without,
    )
    notes = tuple(check_fit(config, weights))
    return Source(assemble(config, weights).eval(), notes)


def _from_run(step: StoragePath, run: RunFolder) -> Source:
    damage = manifest.verify(step)
    if damage:
        raise CheckpointError(damage)
    try:
        config: Config = from_tree(json.loads((run.path / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{step}: cannot read its run's config {run.path / 'config.json'}: {error}"
        ) from error
    with run.starting(config.model) as model_config:
        model = checkpoint.consolidate(step, resolved(model_config))
    return Source(model, spacy_model=config.data.spacy_model)
