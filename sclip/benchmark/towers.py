"""Test which architectures of `open_clip.list_models()` sclip can train, evaluate and export.

Each architecture is built at full depth without tensors (torch's meta device), as at the start of a run. For each
family, the smallest architecture is also built at full width with few layers. This cut model is trained for two steps,
evaluated and exported. Files of a hub are made by `sclip.benchmark.towers_hub`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from torch.nn.modules.batchnorm import _BatchNorm

from sclip.benchmark import towers_cut, towers_hub
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError
from sclip.config import ModelConfig
from sclip.model import ModelError, check_trainable
from sclip.model.hub import hub_name
from sclip.model.structure_clip import StructureCLIP
from sclip.model.towers import is_hub_tower

__all__ = ["Tower", "Towers", "add_arguments", "run"]


@dataclass(frozen=True)
class Tower:
    """One architecture."""

    name: str
    image: str = ""
    text: str = ""
    tokenizer: str = ""
    context: int = 0
    words: tuple[int, int] = (0, 0)
    """Rows and width of the table of word embeddings, which the knowledge encoder (KEE) uses too."""
    parameters: int = 0  # with the KEE's
    packing: str = ""
    """Reason why captions are not packed; "" means that they are packed."""
    start: str = ""
    """"weights" if training must start from trained weights, because the model has BatchNorm; else empty."""
    decoder: bool = False
    """Whether the architecture has a caption decoder (CoCa), which sclip leaves out."""
    refusal: str = ""
    """Reason why the architecture cannot be trained; "" means that it can."""
    cut: str | None = None
    """Error message of the test at full width with few layers; "" means that it passed, None that it was not run."""

    @property
    def family(self) -> tuple[str, ...]:
        """Key that is equal for architectures that run the same code."""
        return (
            self.image,
            self.text,
            self.tokenizer,
            str(self.context),
            self.packing,
            self.start,
            self.refusal,
        )


@dataclass(frozen=True)
class Towers:
    """All architectures and the machine that built them."""

    towers: list[Tower]
    made_on: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the architectures and the machine as JSON values."""
        return {"made_on": self.made_on, "towers": [dataclasses.asdict(tower) for tower in self.towers]}

    def families(self) -> Iterator[list[Tower]]:
        """Yield the architectures of each family. If one of them was cut, it comes first."""
        by_family: dict[tuple[str, ...], list[Tower]] = {}
        for tower in self.towers:
            by_family.setdefault(tower.family, []).append(tower)
        yield from (sorted(family, key=lambda tower: tower.cut is None) for family in by_family.values())

    def accepted(self) -> list[Tower]:
        """Return the architectures that build at full depth and whose family's cut model passed the test."""
        return [t for family in self.families() for t in family if not (t.refusal or family[0].cut)]

    def show(self, console: Any) -> None:
        """Print the table as Markdown."""
        for line in self.lines():
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    def lines(self) -> list[str]:
        """Return the lines of the table and the text around it."""
        head = (
            "",
            "image tower",
            "text tower, context",
            "tokenizer",
            "word table of the KEE",
            "packed",
            "trained, evaluated, exported",
        )
        rows = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for family in self.families():
            first, more = family[0], len(family) - 1
            name = first.name + (f" and {more} more" if more else "")
            start = ", from weights" if first.start else ""
            cut = first.refusal or first.cut or f"yes{start}"
            packed = "no" if first.packing else "yes"
            words = f"{first.words[0]:,} x {first.words[1]}" if first.words[0] else ""
            cells = (name, first.image, f"{first.text}, {first.context}", first.tokenizer, words, packed, cut)
            rows.append(f"| {' | '.join(cells)} |")
        plain = [tower for tower in self.towers if not tower.decoder]
        accepted = self.accepted()
        without = sum(not tower.decoder for tower in accepted)
        reasons = sorted({tower.packing for tower in self.towers if tower.packing})
        return [
            f"{len(accepted)} of {len(self.towers)} architectures can be trained, "
            f"{without} of the {len(plain)} without a decoder:",
            "",
            *rows,
            "",
            f"Not packed: {'; '.join(reasons)}.",
            f"Measured on: {', '.join(f'{name} {value}' for name, value in self.made_on.items())}.",
        ]


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    arguments.add_argument(
        "--model", action="append", metavar="NAME", help="test only this architecture (repeatable)"
    )


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Towers:
    """Build and test the architectures. Raises BenchmarkError for an unknown name."""
    names = options.model or open_clip.list_models()
    if unknown := sorted(set(names) - set(open_clip.list_models())):
        raise BenchmarkError(f"--model {unknown[0]}: no such architecture; see open_clip.list_models()")
    with tempfile.TemporaryDirectory() as work:
        full, cut = Path(work, "hub"), Path(work, "cut")
        for hub in {
            name
            for cfg in map(_text, names)
            for name in (hub_name(cfg), cfg.get("hf_model_name", ""))
            if name
        }:
            towers_hub.make(full, hub)
            towers_hub.make(cut, hub, cut=True)
        towers = []
        for name in names:
            towers.append(_built(name, full))
            on_round(len(towers))
        built = Towers(towers, machine(["torch", "open_clip_torch", "timm", "transformers"]))
        errors = {}
        for family in built.families():
            smallest = min(family, key=lambda tower: tower.parameters)
            if not smallest.refusal:
                errors[smallest.name] = _tried(smallest.name, cut)
                gc.collect()
            on_round(len(errors))
    return dataclasses.replace(
        built, towers=[dataclasses.replace(tower, cut=errors.get(tower.name)) for tower in towers]
    )


def _text(name: str) -> dict[str, Any]:
    text: dict[str, Any] = open_clip.get_model_config(name)["text_cfg"]
    return text


def _built(name: str, hub_folder: Path) -> Tower:
    config = ModelConfig(name=name, hub_folder=str(hub_folder))
    decoder = "multimodal_cfg" in open_clip.get_model_config(name)
    try:
        model = check_trainable(config, has_start=True)
    except ModelError as error:
        return Tower(name, decoder=decoder, refusal=str(error).partition(": ")[2])
    text = _text(name)
    has_statistics = any(isinstance(module, _BatchNorm) for module in model.clip.modules())
    return Tower(
        name,
        _image(model, name),
        _tower(model),
        _tokenizer(hub_name(text)),
        int(text.get("context_length", 77)),
        (model.token_embedding.num_embeddings, model.token_embedding.embedding_dim),
        sum(parameter.numel() for parameter in model.parameters()),
        model.unpackable,
        "weights" if has_statistics else "",
        decoder,
    )


def _image(model: StructureCLIP, name: str) -> str:
    timm_name = open_clip.get_model_config(name)["vision_cfg"].get("timm_model_name", "")
    if timm_name:
        return f"timm {timm_name.partition('_')[0]}"
    return type(model.clip.visual).__name__


def _tokenizer(hub: str) -> str:
    siglip = re.search(r"SigLIP(2|-i18n)?", hub)  # one name for all sizes
    return f"{siglip[0] if siglip else hub} (made here)" if hub else "CLIP's BPE"


def _tower(model: StructureCLIP) -> str:
    text = model.text_tower
    if is_hub_tower(text):
        return f"Hugging Face {type(text.transformer).__name__}"
    if getattr(text, "cls_emb", None) is not None:
        return "Transformer with a class token"
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", ""))
    causal = "causal" if text.attn_mask is not None else "bidirectional"
    return f"{causal}, {'end token' if pool in ('argmax', 'eos') else f'{pool} token'}"


def _tried(name: str, hub_folder: Path) -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            towers_cut.check(name, hub_folder, Path(folder))
    except Exception as error:  # some thirty kinds of towers may raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""
