"""What an architecture takes from the Hugging Face hub: a text tower's config and a tokenizer's files, never weights.

A name as open_clip's configs write it (`roberta-base`) goes in; the folder or hub name that `transformers` loads comes
out. With `model.hub_folder` that is a folder below it, and nothing asks the network.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "HubError", "below", "hub_errors", "source", "text_config"]

FOLDER = "hub"
"""Folder of an export with the files of its text tower and tokenizer, laid out as `model.hub_folder` is."""


class HubError(ValueError):
    """What cannot be had of a hub; one line that names the remedy."""


def source(name: str, hub_folder: str) -> str:
    """Return the folder of a hub's name below `hub_folder`, without one the name itself; `HubError` where none is."""
    if not hub_folder:
        return name
    folder = below(Path(hub_folder).expanduser(), name)
    if not folder.is_dir():
        raise HubError(f"model.hub_folder={hub_folder!r}: has no folder {name}; put its files there")
    return str(folder)


def below(folder: Path, name: str) -> Path:
    """Return where the files of a hub's name stand in a folder; the name may be a path itself."""
    return folder / name.strip("/")


def text_config(text: Mapping[str, Any], hub_folder: str) -> Any:
    """Return the `transformers` config of a text tower, from the `text_cfg` of its architecture; `HubError` as above.

    Of an encoder with a decoder, as T5, hidden_size and vocab_size are those of its encoder.
    """
    name = source(text["hf_model_name"], hub_folder)
    with hub_errors(name):
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(name, trust_remote_code=False)


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Raise `HubError` for what `transformers` cannot load, and where it is not installed."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("transformers", "tokenizers"):
            raise HubError(
                f"{name} is loaded with transformers, which is not installed: "
                "pip install 'sclip[transformers]'"
            ) from error
        raise HubError(f"{name}: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = re.split(r"\. |\n", str(error).strip())[0]
        raise HubError(
            f"{name} cannot be loaded ({reason}); put its files into model.hub_folder=FOLDER, as FOLDER/{name}"
        ) from error
