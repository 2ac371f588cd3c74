"""Write the files that Hugging Face's `CLIPProcessor` reads: the tokenizer and the image preprocessing of a CLIP.

vocab.json, merges.txt, tokenizer_config.json   open_clip's version of CLIP's BPE, or a hub tokenizer's own files
preprocessor_config.json                        resize, centre crop, normalisation
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sclip.model.architecture import image_size
from sclip.model.structure_clip import StructureCLIP
from sclip.model.tokenizer import Tokenizer

__all__ = ["normalisation", "write_processor"]

_BICUBIC = 3  # Pillow's number
_START, _END = "<|startoftext|>", "<|endoftext|>"


def normalisation(model: StructureCLIP) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of each channel, for pixels from 0 to 1."""
    mean, std = model.image_mean / 255, 1 / (255 * model.image_inverse_std)
    return mean.flatten().tolist(), std.flatten().tolist()


def write_processor(model: StructureCLIP, directory: Path) -> None:
    """Write the processor's files into an existing folder."""
    tokenizer = Tokenizer(model.config)
    if tokenizer.hub:
        tokenizer.hub.save(directory)
    else:
        _write_bpe(tokenizer.bpe, directory)
    size, (mean, std) = image_size(model.config.name), normalisation(model)
    _write(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": _BICUBIC,
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": mean,
            "image_std": std,
        },
    )


def _write_bpe(bpe: Any, directory: Path) -> None:
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {_START: bpe.sot_token_id, _END: bpe.eot_token_id}  # open_clip spells them differently
    words = {word: id_ for word, id_ in bpe.encoder.items() if id_ not in special.values()}
    _write(directory / "vocab.json", words | special)
    _write(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": bpe.context_length,
            "bos_token": _START,
            "eos_token": _END,
            "unk_token": _END,
            "pad_token": _END,
        },
    )


def _write(file: Path, tree: dict[str, Any]) -> None:
    file.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
