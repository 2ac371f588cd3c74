"""Read weights from files of any supported layout, as tensors under sclip's names. No code in a file is executed.

A file or folder goes in. Tensors come out under the names that `sclip.model.export` writes: open_clip's names with the
prefix "clip.", and the KEE's with "kee.". The architecture's name and use of QuickGELU come out if the source states
them. Supported sources:

- our export: its folder, or its model.safetensors alone;
- open_clip's state dict (safetensors or a torch file), a checkpoint of its training, and its folder for a hub
  (open_clip_config.json with the weights beside it);
- OpenAI's state dict, and the file of Structure-CLIP's released code: {"clip": OpenAI's, "transformer": ..., "acc"};
- each of these as the "state_dict" or "model" of a training checkpoint, also if DistributedDataParallel or
  torch.compile had wrapped the model.

Torch files are pickles, read with `weights_only`: it builds only tensors, numbers and containers. TorchScript archives
are programs, so they are not opened.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import get_model_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sclip.model.architecture import ModelError, contrastive, with_quick_gelu
from sclip.model.structure_clip import CLIP_PREFIX

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "Weights", "read", "save"]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")

_QUICK_GELU = "quick_gelu"  # key in files of sclip and configs of open_clip

_OPENAI_ONLY = ("input_resolution", "context_length", "vocab_size")
"""Entries that only OpenAI's own state dicts have beside the weights."""

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of tensor names that torch.compile, FSDP1 and activation checkpointing insert."""

_DDP = "module."
"""Prefix that DistributedDataParallel adds. It is removed only if all names have it: a submodule may have this name."""

_SCALAR = np.float64().__reduce__()[0]
_NUMBERS: list[Any] = [
    (np.dtype, "numpy.dtype"),
    (type(np.dtype(np.float64)), "numpy.dtypes.Float64DType"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
]
"""Classes in a pickle of the released code's numpy number "acc"; old and new numpy name them differently."""


@dataclass(frozen=True)
class Weights:
    """Weights of one source, and the facts that the source states about them."""

    source: str
    """The user's name for the source. Every message about the source starts with this name."""
    tensors: Mapping[str, Tensor]
    """All tensors of the source under sclip's names, of any floating dtype."""
    architecture: str = ""
    """open_clip's name of the architecture; empty if the source does not state it."""
    quick_gelu: bool | None = None
    """Whether the weights were trained with QuickGELU; None if the source does not state it."""
    left_out: tuple[str, ...] = field(default=())
    """Descriptions of other content in the source that the model cannot use."""

    @property
    def context_length(self) -> int:
        """Number of caption tokens that the source's text tower reads; 0 means that no tensor shows it."""
        for tower in (CLIP_PREFIX, f"{CLIP_PREFIX}text."):
            if f"{tower}positional_embedding" in self.tensors:
                # CoCa's last position belongs to its class token.
                return len(self.tensors[f"{tower}positional_embedding"]) - (f"{tower}cls_emb" in self.tensors)
        return 0


def read(path: str | Path, source: str) -> Weights:
    """Return the weights of a file or folder, memory-mapped if its format allows.

    Raises `ModelError` if the file is missing, truncated, of unknown layout, a TorchScript program, or a pickle of
    anything but tensors, numbers and containers. Other content is listed in `left_out`. The error is one line that
    begins with `source`.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path, source)
    if not path.is_file():
        raise ModelError(f"{source}: no such file")
    if not path.stat().st_size:
        raise ModelError(f"{source}: an empty file")
    if path.name in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME) and (path.parent / HF_CONFIG_NAME).is_file():
        return _from_hub(path.parent, path, source)
    return _file(path, source)


def save(tensors: Mapping[str, Tensor], path: Path, quick_gelu: bool) -> None:
    """Write tensors under their names. The file's header records whether they were trained with QuickGELU."""
    # One entry only: safetensors writes several in random order, and equal weights must give equal files.
    header = {_QUICK_GELU: json.dumps(quick_gelu)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=header)


def _folder(path: Path, source: str) -> Weights:
    if (path / HF_CONFIG_NAME).is_file():
        for name in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
            if (path / name).is_file():
                return _from_hub(path, path / name, source)
        raise ModelError(f"{source}: no {HF_SAFE_WEIGHTS_NAME} or {HF_WEIGHTS_NAME} beside {HF_CONFIG_NAME}")
    if not (path / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"{source}: a folder without {WEIGHTS_FILE} (an export) or {HF_CONFIG_NAME} (open_clip's); "
            "sclip convert turns a checkpoint into an export"
        )
    weights = _file(path / WEIGHTS_FILE, source)
    if not (path / CONFIG_FILE).is_file():
        return weights
    name = str(_json(path / CONFIG_FILE, source).get("name", ""))
    return replace(weights, architecture=name, quick_gelu=with_quick_gelu(name))


def _from_hub(folder: Path, file: Path, source: str) -> Weights:
    config = _json(folder / HF_CONFIG_NAME, source)
    try:
        model, preprocess = dict(config["model_cfg"]), config.get("preprocess_cfg", {})
        tensors = dict(_file(file, source).tensors)
        if "mean" in preprocess:
            tensors["image_mean"] = (255 * torch.tensor(preprocess["mean"])).reshape(3, 1, 1)
        if "std" in preprocess:
            tensors["image_inverse_std"] = (1 / (255 * torch.tensor(preprocess["std"]))).reshape(3, 1, 1)
        name = _named(model)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{source}: {HF_CONFIG_NAME} is not a config of open_clip ({error!r})") from error
    return Weights(source, tensors, name, bool(model.get(_QUICK_GELU, False)))


def _named(config: Mapping[str, Any]) -> str:
    """Return the architecture with this open_clip config, whatever its context length; "" means that none fits."""

    def shape(candidate: Mapping[str, Any]) -> dict[str, Any]:
        towers = contrastive(dict(candidate))
        text = {key: value for key, value in towers["text_cfg"].items() if key != "context_length"}
        kept = {key: value for key, value in towers.items() if not key.startswith("init_logit_")}
        return kept | {"text_cfg": text}

    names = open_clip.list_models()
    return next((name for name in names if shape(get_model_config(name)) == shape(config)), "")


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: {path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{source}: {path.name} is not a JSON object")
    return content


def _file(path: Path, source: str) -> Weights:
    if path.suffix == ".safetensors":
        tensors, header = _safetensors(path, source)
        weights = _state(tensors, source)
        if header.get(_QUICK_GELU) in ("true", "false"):
            weights = replace(weights, quick_gelu=header[_QUICK_GELU] == "true")
        return weights
    if path.suffix in TORCH_FILES:
        return _torch(path, source)
    raise ModelError(f"{source}: expected a folder, a .safetensors file or a {', '.join(TORCH_FILES)} file")


def _safetensors(path: Path, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        with path.open("rb") as stream:
            start = stream.read(2)
        reason = str(error)
        if start == b"PK" or start[:1] == b"\x80":
            reason = "it is a pickle; rename it to .pt, which is read if it holds only tensors"
        raise ModelError(f"{source}: not a readable safetensors file ({reason})") from error


def _torch(path: Path, source: str) -> Weights:
    zipped = zipfile.is_zipfile(path)
    if zipped and _is_torchscript(path):
        raise ModelError(
            f"{source}: not opened, because a TorchScript archive is a program; for OpenAI's weights, set "
            "model.pretrained=openai; for others, save the state dict (torch.save(model.state_dict(), FILE))"
        )
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged pickle may raise any exception
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise ModelError(
                f"{source}: not only weights: loading it would run {refused[1]}; on a machine that may open the file, "
                "save only the state dict (torch.save(model.state_dict(), FILE))"
            ) from error
        # Keep the first sentence after torch's own advice: to load without `weights_only` would be unsafe.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
        reason = re.split(r"\. |\n", reason)[0] or type(error).__name__
        raise ModelError(f"{source}: not a readable torch file ({reason})") from error
    return _unwrapped(content, source)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def _unwrapped(held: Any, source: str, depth: int = 2) -> Weights:
    """Return the weights in a torch file's content: a state dict, or one inside at most `depth` dicts."""
    if not isinstance(held, Mapping):
        raise ModelError(f"{source}: holds a {type(held).__name__}, not a state dict")
    if isinstance(held.get("clip"), Mapping) and isinstance(held.get("transformer"), Mapping):
        # In most versions of the released code, the encoder is a BERT over WordPiece ids. In others it has a word table
        # for each part of a triple. Neither encoder's tensors have a counterpart here.
        clip = _state(held["clip"], source)
        note = f"the released code's encoder ({len(held['transformer'])} tensors under 'transformer')"
        # The released code's CLIP is OpenAI's, with QuickGELU hard-coded.
        return replace(clip, quick_gelu=True, left_out=(note,))
    for entry in ("state_dict", "model"):
        if depth and isinstance(held.get(entry), Mapping):
            weights = _unwrapped(held[entry], source, depth - 1)
            names = ", ".join(str(name) for name in held if name != entry)
            return replace(weights, left_out=(*([names] if names else []), *weights.left_out))
    return _state(held, source)


def _state(state: Mapping[Any, Any], source: str) -> Weights:
    if not state:
        raise ModelError(f"{source}: holds no tensors")
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(f"{source}: not a state dict: entries are not tensors ({_some(strange)})")
    tensors = _peeled(state, source)
    openai = [tensors.pop(name) for name in _OPENAI_ONLY if name in tensors]
    if not any(name.startswith(CLIP_PREFIX) for name in tensors):
        tensors = {CLIP_PREFIX + name: tensor for name, tensor in tensors.items()}
    return Weights(source, tensors, quick_gelu=True if openai else None)


def _peeled(state: Mapping[Any, Tensor], source: str) -> dict[str, Tensor]:
    tensors = {
        ".".join(p for p in str(name).split(".") if p not in _WRAPPERS): t for name, t in state.items()
    }
    while all(name.startswith(_DDP) for name in tensors):
        tensors = {name.removeprefix(_DDP): tensor for name, tensor in tensors.items()}
    if len(tensors) < len(state):
        raise ModelError(
            f"{source}: holds tensors twice, of a wrapped and of a plain model; save only one of them"
        )
    return tensors


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
