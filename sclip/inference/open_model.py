"""Open a model by any of its names; return a `Scorer`.

my-run, ~/sclip/runs/my-run       a run: its exported model, or its newest checkpoint; also s3://bucket/runs/my-run
~/sclip/runs/my-run/step-00000500 a checkpoint
exported/                         our export (folder or weights file), or a folder that open_clip pushed to a hub
weights.safetensors               a file of weights that records its architecture
ViT-B-32:openai                   an open_clip architecture with a tag, or with a file of weights
ViT-B-32:                         the same architecture with random weights of a fixed seed

`sclip.load` also takes versions of the registry, as in models:/structure-clip@champion.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

import torch

from sclip.config import KEEConfig, ModelConfig
from sclip.inference import convert
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, StructureCLIP, build_model
from sclip.model.build import pretrained_weights
from sclip.model.weights import CONFIG_FILE, WEIGHTS_FILE
from sclip.storage.masking import mask
from sclip.storage.paths import StoragePath, local_copy, shown, storage_path
from sclip.train.run_folder import RunFolder

__all__ = ["located", "open_model", "open_source"]

_FORMS = (
    "a run (name, folder or URI), a checkpoint (step-*), an export or weights (folder or file), ARCHITECTURE:TAG such "
    "as ViT-B-32:openai (no tag: random weights), or models:/NAME@ALIAS"
)


def open_model(name: str | Path, device: str = "cpu", storage: str | Path = "~/sclip") -> Scorer:
    """Return the named model with its parser and tokenizer.

    Args:
        name: in any form that the module docstring lists. If a file and a run have this name, the file is opened.
        device: "cpu", "cuda" or "cuda:1".
        storage: `run.storage`; the name of a run is looked up in its folder `runs`.

    Raises ModelError, CheckpointError, ParserError or StorageError.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ModelError(f"device {device!r}: must be cpu, cuda or cuda:1")
    if device != "cpu" and not torch.cuda.is_available():
        raise ModelError(f"device {device!r}: torch finds no such GPU; use cpu")
    text = str(name)
    path = located(text, storage)
    if path is not None:
        return _from_path(path, device)
    return Scorer(_from_architecture(text), device=device)


def open_source(
    name: str,
    architecture: str = "",
    quick_gelu: Literal["auto", "on", "off"] = "auto",
    storage: str | Path = "~/sclip",
) -> convert.Source:
    """Return the named model without its parser, as a `Source` for `sclip.inference.convert`.

    `name`, `storage` and the errors are as in `open_model`. `architecture` and `quick_gelu` are for weights that do not
    record them.
    """
    path = located(name, storage)
    if path is None:
        return convert.Source(_from_architecture(name))
    if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file():
        path = path.parent
    return convert.opened(path, architecture, quick_gelu)


def located(name: str, storage: str | Path) -> StoragePath | None:
    """Return the path of the file, folder or run `name`, in this order; None if none exists.

    Raises ModelError for an empty name.
    """
    if not name.strip():
        raise ModelError(f"{name!r}: names no model; name {_FORMS}")
    named = storage_path(name) if "://" in name else Path(name).expanduser()
    paths = (named, storage_path(str(storage)) / "runs" / name)
    return next((path for path in paths if path.exists()), None)


def _from_path(path: StoragePath, device: str) -> Scorer:
    if (path / "config.json").is_file() and not (path / WEIGHTS_FILE).is_file():
        finished = (path / "model" / WEIGHTS_FILE).is_file()
        if not finished and not any(path.glob("step-*")):
            raise ModelError(f"{path}: the run has no checkpoint yet")
        if not finished and RunFolder(path).latest() is None:
            raise ModelError(f"{path}: the run has no complete checkpoint yet")
    parents = [path.parent] if path.name == WEIGHTS_FILE else []
    for export in (path / "model", path, *parents):
        if (export / WEIGHTS_FILE).is_file() and (export / CONFIG_FILE).is_file():
            with local_copy(export) as folder:
                return Scorer.load(folder, device)
    try:
        source = convert.opened(path)
    except ModelError as error:
        if "--model" in str(error):
            raise ModelError(
                f"{path}: records no architecture; name it ARCHITECTURE:{shown(path)}"
            ) from error
        raise
    return Scorer(source.model, source.spacy_model or "", device)


def _from_architecture(text: str) -> StructureCLIP:
    architecture, separator, source = text.partition(":")
    if not separator or source.startswith("//"):
        raise ModelError(f"{mask(text)!r}: no such model; name {_FORMS}")
    config = ModelConfig(name=architecture, pretrained=source, kee=KEEConfig(enabled=False))
    if architecture.endswith("-quickgelu") and Path(source).expanduser().exists():
        config = ModelConfig(name=architecture, pretrained=source, quick_gelu="on", kee=config.kee)
    try:
        weights = pretrained_weights(config)
        length = weights.context_length if weights else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_model(dataclasses.replace(config, context_length=length))
    except ModelError as error:
        if "model.quick_gelu=" in str(error):
            raise ModelError(
                f"{error}; sclip convert {shown(source)} FOLDER --model {architecture} --quick-gelu on|off makes an "
                "export that records it"
            ) from error
        raise
