"""Load a text tower's config and locate tokenizer files from the Hugging Face hub, but never weights.

A hub name from open_clip's configs (`roberta-base`) goes in. The name or folder that `transformers` loads comes out: a
folder below `model.hub_folder` if that is set, without using the network.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "HubError", "below", "hub_errors", "source", "text_config"]

FOLDER = "hub"
"""Subfolder of an export for hub files of text tower and tokenizer, in the layout of `model.hub_folder`."""


class HubError(ValueError):
    """Error for hub files that cannot be loaded: one line that names the remedy."""


def source(name: str, hub_folder: str) -> str:
    """Return the folder of a hub name below `hub_folder`, or the name itself if `hub_folder` is empty.

    Raises `HubError` if the folder is missing.
    """
    if not hub_folder:
        return name
    folder = below(Path(hub_folder).expanduser(), name)
    if not folder.is_dir():
        raise HubError(f"model.hub_folder={hub_folder!r}: has no folder {name}; put its hub files there")
    return str(folder)


def below(folder: Path, name: str) -> Path:
    """Return `folder` / `name`, even if the hub name starts with "/"."""
    return folder / name.strip("/")


def text_config(text: Mapping[str, Any], hub_folder: str) -> Any:
    """Return the `transformers` config of the text tower in a `text_cfg`; raise `HubError` if it cannot be loaded."""
    name = source(text["hf_model_name"], hub_folder)
    with hub_errors(name):
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(name, trust_remote_code=False)


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn errors in the block into a `HubError` about `name`."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("transformers", "tokenizers"):
            raise HubError(
                f"{name} needs the package transformers, which is not installed: "
                "pip install 'sclip[transformers]'"
            ) from error
        raise HubError(f"{name}: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = re.split(r"\. |\n", str(error).strip())[0]
        raise HubError(
            f"{name} cannot be loaded ({reason}); put its files into model.hub_folder=FOLDER, as FOLDER/{name}"
        ) from error
