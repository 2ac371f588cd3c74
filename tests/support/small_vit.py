"""A small ViT CLIP of open_clip, plain and with QuickGELU, saved in the file layouts of other programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import save_file
from torch import Tensor, nn

from sclip.config import KEEConfig, ModelConfig
from sclip.model import ModelError, build_model

KEE = KEEConfig(layers=1, heads=2)
PLAIN, QUICK = "small-vit", "small-vit-quickgelu"
RESNET = "small-resnet"
"""The same model with a ResNet image tower, which has BatchNorm."""
CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}

_RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}

with tempfile.TemporaryDirectory() as _folder:
    Path(_folder, f"{RESNET}.json").write_text(json.dumps(CONFIG | {"vision_cfg": _RESNET}))
    Path(_folder, f"{PLAIN}.json").write_text(json.dumps(CONFIG))
    Path(_folder, f"{QUICK}.json").write_text(json.dumps(CONFIG | {"quick_gelu": True}))
    open_clip.add_model_config(_folder)


def clip_of(name: str, seed: int = 0, **more: Any) -> Any:
    """Return an open_clip model with random weights large enough that GELU and QuickGELU differ."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    clip = open_clip.create_model(name, **more).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
        clip.logit_scale.fill_(3.5)
    return clip


@torch.no_grad()
def features(clip: Any) -> Tensor:
    """Return image and text features [2, 4, D] of fixed normalized images and token ids.

    Without torch's fast path of evaluation, whose rounding differs, open_clip's attention equals ours in every bit.
    """
    generator = torch.Generator().manual_seed(0)
    size = clip.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    images = torch.randn(4, 3, side, side, generator=generator)
    ids = torch.randint(1, 49406, (4, CONFIG["text_cfg"]["context_length"]), generator=generator)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return torch.stack([clip.encode_image(images), clip.encode_text(ids)])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class _NoTokenizer:
    def save_pretrained(self, folder: Path) -> None:
        """Write nothing: CLIP's own tokenizer has no files."""


def as_safetensors(clip: nn.Module, folder: Path) -> Path:
    save_file(clip.state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"


def as_state_dict(clip: nn.Module, folder: Path) -> Path:
    torch.save(clip.state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


def as_old_state_dict(clip: nn.Module, folder: Path) -> Path:
    torch.save(clip.state_dict(), folder / "clip.bin", _use_new_zipfile_serialization=False)
    return folder / "clip.bin"


def as_training_checkpoint(clip: nn.Module, folder: Path) -> Path:
    """Save as open_clip_train does: a DistributedDataParallel model, with its optimizer after a step."""
    optimizer = torch.optim.AdamW(clip.parameters())
    for parameter in clip.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {f"module.{name}": tensor.clone() for name, tensor in clip.state_dict().items()}
    optimizer.step()
    held = {"epoch": 3, "name": "run", "state_dict": before, "optimizer": optimizer.state_dict()}
    torch.save(held, folder / "epoch_3.pt")
    clip.load_state_dict({name.removeprefix("module."): tensor for name, tensor in before.items()})
    return folder / "epoch_3.pt"


def as_hub_folder(clip: Any, folder: Path, name: str = PLAIN, safe: bool = True) -> Path:
    save_for_hf(clip, _NoTokenizer(), open_clip.get_model_config(name), str(folder / "hub"), safe)
    return folder / "hub"


def as_openai(clip: nn.Module, folder: Path) -> Path:
    more = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    torch.save(clip.state_dict() | {n: torch.tensor(v) for n, v in more.items()}, folder / "openai.pth")
    return folder / "openai.pth"


def as_released(clip: nn.Module, folder: Path) -> Path:
    """Save as the released code of Structure-CLIP does: its CLIP, a BERT with a linear layer, and a NumPy score."""
    transformer = {
        "model.embeddings.word_embeddings.weight": torch.ones(30, 8),
        "model.encoder.layer.0.attention.self.query.weight": torch.ones(8, 8),
        "linear.weight": torch.ones(4, 8),
        "linear.bias": torch.ones(4),
    }
    held = {"clip": clip.state_dict(), "transformer": transformer, "acc": np.mean([0.5, 0.75])}
    torch.save(held, folder / "best_0.625.pt")
    return folder / "best_0.625.pt"


SILENT: list[Callable[[nn.Module, Path], Path]] = [
    as_safetensors, as_state_dict, as_old_state_dict, as_training_checkpoint,
]  # fmt: skip
"""Layouts that do not say which activation the weights were trained with."""


def as_quick_hub_folder(clip: Any, folder: Path) -> Path:
    return as_hub_folder(clip, folder, QUICK)


def as_quick_hub_folder_with_bin(clip: Any, folder: Path) -> Path:
    return as_hub_folder(clip, folder, QUICK, safe=False)


def as_quick_hub_file(clip: Any, folder: Path) -> Path:
    return as_hub_folder(clip, folder, QUICK) / "open_clip_model.safetensors"


TELLING: list[Callable[[nn.Module, Path], Path]] = [
    as_openai, as_released, as_quick_hub_folder, as_quick_hub_folder_with_bin, as_quick_hub_file,
]  # fmt: skip
"""Layouts that do say it, written from a model with QuickGELU."""


def config_of(path: Path, **more: Any) -> ModelConfig:
    return ModelConfig(**{"name": PLAIN, "pretrained": str(path), "kee": KEE, **more})


def refusal(config: ModelConfig) -> str:
    """Return the message with which a model is refused: one line, without torch's advice."""
    with pytest.raises(ModelError) as raised:
        build_model(config)
    message = str(raised.value)
    assert "\n" not in message
    assert "weights_only" not in message  # torch advises to load without it
    return message
