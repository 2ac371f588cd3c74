"""Write the CLIP part as a folder for Hugging Face's `CLIPModel`, by giving its tensors other names.

A model goes in; config.json, model.safetensors and the processor's files come out. Only `check_clip_model` needs the
package transformers. Towers that `CLIPModel` would compute differently raise `ModelError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sclip.model.architecture import ModelError, image_size
from sclip.model.export import export_state
from sclip.model.processor_files import write_processor
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP
from sclip.model.tokenizer import Tokenizer

__all__ = ["TOLERANCE", "check_clip_model", "write_clip_model"]

TOLERANCE = 1e-5
"""Largest allowed difference between transformers' and open_clip's unit features, per component, in fp32."""

_RENAMED = (
    (r"visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.ln_pre\.", "vision_model.pre_layrnorm."),  # transformers' spelling
    (r"visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"visual\.proj$", "visual_projection.weight"),
    (r"token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.", "text_model.final_layer_norm."),
    (r"transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"text_projection(\.weight)?$", "text_projection.weight"),
    (r"logit_scale$", "logit_scale"),
)
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"(.*\.layers\.\d+\.)(.+?)([._](?:weight|bias))")
_CAPTIONS = ("a small red circle to the left of a blue square", "an astronaut rides a horse", "dogs' 3 balls")


def write_clip_model(model: StructureCLIP, directory: str | Path) -> Path:
    """Write a folder that `CLIPModel` and `CLIPProcessor.from_pretrained` load; return it, created if missing.

    Raises ModelError, before anything is written, if `CLIPModel` cannot hold the towers.
    """
    config, state = _config(model), _state(model)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_processor(model, directory)
    return directory


@torch.no_grad()
def check_clip_model(model: StructureCLIP, directory: str | Path) -> float | None:
    """Return the largest feature difference between the written folder and the model; None without transformers.

    The text feature is E_CLIP, without knowledge. Raises ModelError if the difference exceeds `TOLERANCE`.
    """
    try:
        import transformers
    except ImportError:
        return None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options = {"local_files_only": True}
    loaded, info = transformers.CLIPModel.from_pretrained(directory, output_loading_info=True, **options)
    processor = transformers.CLIPProcessor.from_pretrained(directory, **options)
    if wrong := [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]:
        raise ModelError(f"{directory}: transformers {transformers.__version__} reports {wrong[0]}")
    size = image_size(model.config.name)
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
    inputs = processor(
        text=list(_CAPTIONS), images=pictures, return_tensors="pt", padding=True, truncation=True
    )
    outputs = loaded.eval()(**inputs)
    ids = torch.from_numpy(Tokenizer(model.config).text(_CAPTIONS))
    pairs = (
        (outputs.image_embeds, model.encode_image(pixels)),
        (outputs.text_embeds, model.encode_text(ids.long())),
    )
    difference = max(float((F.normalize(a, dim=-1) - b).abs().max()) for a, b in pairs)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"{directory}: features of transformers {transformers.__version__} differ by {difference:.1e}, more than "
            f"{TOLERANCE:g}; keep the model in its own format"
        )
    return difference


def _state(model: StructureCLIP) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, tensor in export_state(model).items():
        if not name.startswith(CLIP_PREFIX):
            continue
        own = name.removeprefix(CLIP_PREFIX).removeprefix("text.")
        for start, other in _RENAMED:
            renamed, count = re.subn(f"^{start}", other, own)
            if count:
                break
        else:
            raise _unfit(model, f"it has no name for the tensor {own}")
        if renamed.endswith("_projection.weight") and not own.endswith(".weight"):
            tensor = tensor.T  # open_clip multiplies by the matrix; a Linear multiplies by its transpose
        if not (block := _BLOCK.fullmatch(renamed)):
            state[renamed] = tensor.contiguous()
            continue
        layer, part, kind = block.groups()
        if part == "attn.in_proj":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{layer}self_attn.{letter}_proj.{kind[1:]}"] = third.contiguous()
        elif part in _IN_BLOCK:
            state[f"{layer}{_IN_BLOCK[part]}.{kind[1:]}"] = tensor
        else:
            raise _unfit(model, f"it has no name for the tensor {own}")
    return state


def _config(model: StructureCLIP) -> dict[str, Any]:
    image, text = model.clip.visual, model.text_tower
    pool = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    refusals = {
        f"its image tower is a {type(image).__name__}, not CLIP's ViT": not isinstance(
            image, VisionTransformer
        ),
        "its text tower is not CLIP's": text is not model.clip and not isinstance(text, TextTransformer),
        "it has SigLIP's logit bias": model.logit_bias is not None,
        f"its text feature is pooled by {pool!r}, not at the end token": pool != "argmax",
        "its text tower has no causal mask": getattr(text, "attn_mask", None) is None,
        "its text tower has no projection": getattr(text, "text_projection", None) is None,
    }
    for why, is_refused in refusals.items():
        if is_refused:
            raise _unfit(model, why)
    if image.attn_pool is not None or image.pool_type != "tok":
        raise _unfit(model, "its image feature is not taken at the class token")
    if not isinstance(image.ln_pre, nn.LayerNorm) or image.proj is None:
        raise _unfit(model, "its image tower lacks the first LayerNorm or the projection")
    if len(set(image.patch_size)) != 1:
        raise _unfit(model, f"its patches are {image.patch_size}, not square")
    bpe = Tokenizer(model.config).bpe
    if bpe.clean_fn("A,  B") != "a, b":
        raise _unfit(model, "its tokenizer cleans captions in another way than CLIP's")
    width = image.proj.shape[1]
    text_config = _tower(model, text, (text.ln_final,)) | {
        "model_type": "clip_text_model",
        "vocab_size": text.token_embedding.num_embeddings,
        "max_position_embeddings": len(text.positional_embedding),
        "projection_dim": width,
        "bos_token_id": bpe.sot_token_id,
        "eos_token_id": bpe.eot_token_id,
        "pad_token_id": bpe.eot_token_id,
    }
    vision_config = _tower(model, image, (image.ln_pre, image.ln_post)) | {
        "model_type": "clip_vision_model",
        "num_channels": 3,
        "image_size": image_size(model.config.name),
        "patch_size": image.patch_size[0],
        "projection_dim": width,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": width,
        "logit_scale_init_value": model.logit_scale.log.item(),
        "torch_dtype": "float32",
        "text_config": text_config,
        "vision_config": vision_config,
    }


def _tower(model: StructureCLIP, tower: Any, norms: Iterable[nn.LayerNorm]) -> dict[str, Any]:
    blocks = list(tower.transformer.resblocks)
    first = blocks[0]
    activations = {_activation(block.mlp.gelu) for block in blocks}
    epsilons = {norm.eps for block in blocks for norm in (block.ln_1, block.ln_2)} | {n.eps for n in norms}
    if len(activations) != 1 or None in activations:
        raise _unfit(model, f"its activation is {first.mlp.gelu}")
    if len(epsilons) != 1:
        raise _unfit(model, "LayerNorms of one tower have different epsilons")
    return {
        "hidden_size": first.mlp.c_fc.in_features,
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": first.attn.num_heads,
        "hidden_act": activations.pop(),
        "layer_norm_eps": epsilons.pop(),
        "attention_dropout": 0.0,
    }


def _activation(module: nn.Module) -> str | None:
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return {"none": "gelu", "tanh": "gelu_pytorch_tanh"}[module.approximate]
    return None


def _unfit(model: StructureCLIP, why: str) -> ModelError:
    return ModelError(
        f"{model.config.name}: transformers' CLIPModel cannot hold it: {why}; use sclip convert --to onnx"
    )
