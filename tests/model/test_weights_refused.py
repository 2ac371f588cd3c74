"""Files that are no weights are refused in one line, and nothing that is in them is run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from support.small_vit import PLAIN, as_hub_folder, clip_of, config_of, refusal


class _Call:
    """Pickled, it is a call of os.mkdir when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_with_its_name_and_never_run(tmp_path: Path, zipped: bool) -> None:
    path, made = tmp_path / "evil.pt", tmp_path / "made"
    held = {**clip_of(PLAIN).state_dict(), "hook": _Call(made)}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    message = refusal(config_of(path))
    assert f"{os.mkdir.__module__}.mkdir would be run" in message
    assert "state_dict()" in message
    assert not made.exists()


def test_a_torchscript_archive_is_refused_unopened_with_the_tag_that_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "ViT-B-32.pt")

    def opened(*_: Any, **__: Any) -> None:
        pytest.fail("it was opened")

    monkeypatch.setattr(torch, "load", opened)
    monkeypatch.setattr(torch.jit, "load", opened)
    message = refusal(config_of(tmp_path / "ViT-B-32.pt"))
    assert "TorchScript" in message
    assert "model.pretrained=openai" in message


def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    for zipped in (True, False):
        torch.save(clip_of(PLAIN).state_dict(), path, _use_new_zipfile_serialization=zipped)
        assert "a pickle under another name" in refusal(config_of(path))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.pt", b"", "an empty file"),
        ("pickle.safetensors", b"\x80\x02}q\x00.", "not a readable safetensors file"),
        ("cut.safetensors", save({"a": torch.ones(9)})[:-5], "not a readable safetensors file"),
        ("text.pt", b"no weights " * 20, "not a readable torch file"),
        ("cut.pt", saved({"weight": torch.ones(100)})[:-200], "not a readable torch file"),
        ("list.pt", saved([torch.ones(1)]), "holds a list, no state dict"),
        ("numbers.pt", saved({"lr": 0.5, "step": 3}), "lr, step is no tensor"),
        ("nothing.pt", saved({}), "holds no tensors"),
        ("array.npz", saved({}), "expected a folder, a .safetensors file or a .pt"),
        ("pickle.pt", pickle.dumps({"weight": np.ones(3)}), "not a readable torch file (Unsupported operand"),
    ],
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(
    name: str, content: bytes, found: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(config_of(tmp_path / name))
    assert message.startswith(f"model.pretrained={str(tmp_path / name)!r}: ")
    assert found in message


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {}, "preprocess_cfg": {"mean": "x"}}']
)
def test_a_hub_folder_with_a_broken_config_is_refused(config: str, tmp_path: Path) -> None:
    path = as_hub_folder(clip_of(PLAIN), tmp_path)
    (path / "open_clip_config.json").write_text(config)
    assert "open_clip_config.json" in refusal(config_of(path))


def test_a_folder_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    assert "a folder without model.safetensors" in refusal(config_of(tmp_path))
    path = as_hub_folder(clip_of(PLAIN), tmp_path)
    (path / "open_clip_model.safetensors").unlink()
    assert "no open_clip_model.safetensors or open_clip_pytorch_model.bin" in refusal(config_of(path))
