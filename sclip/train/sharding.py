"""The plain model spread over the workers, and the optimizer over its pieces.

A CPU model goes in, the same model wrapped for this rank comes out: FSDP2 (sharded parameters, gradients and
optimizer state) or DDP (a replica each). The model itself knows nothing of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from sclip.config import TrainConfig
from sclip.model.structure_clip import CLIP_PREFIX, StructureCLIP

__all__ = ["apply", "learning_rate", "make_optimizer"]

BLOCK_LISTS = ("resblocks", "blocks", "layers")


def apply(model: StructureCLIP, config: TrainConfig, device: torch.device) -> nn.Module:
    """Return the model on `device`, wrapped as `config.sharding` says; plain where no process group is.

    Rank 0's weights are the ones that count on every rank. FSDP2 wraps in place: `model` itself is returned.
    A part whose learning rate is scaled by 0 is frozen.
    """
    model = model.to(device)
    # Before wrapping: DDP waits for the gradients of what is trainable then, and FSDP2 reduces only those.
    for name, parameter in model.named_parameters():
        if _lr_scale(name, config) == 0:
            parameter.requires_grad_(False)
    if not dist.is_initialized():
        return model
    if config.sharding == "ddp":
        # Of depthwise convolutions, whose one input channel makes two layouts equal; nothing is slower for it.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = torch.bfloat16 if config.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The towers' own groups: their inputs arrive in fp32 and are cast at these borders. The image tower has
    # one for its stem and head; the text tower's rest (word table, projection) stays with the root, where the
    # encoder's phrases look words up as well.
    fully_shard(model.clip.visual, mesh=mesh, mp_policy=policy)
    if model.kee is not None:
        fully_shard(model.kee, mesh=mesh, mp_policy=policy)
    fully_shard(model.logit_scale, mesh=mesh)
    if model.logit_bias is not None:
        fully_shard(model.logit_bias, mesh=mesh)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for method in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)
    return model


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over a wrapped model; matrices decay, vectors, gains, biases and the logit scale do not.

    Each group holds in "lr_scale" what its learning rate is multiplied by; what is frozen is in none.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((_lr_scale(name, config), decay), []).append(parameter)
    # The same order on every rank and in every run, whatever the order of the modules.
    described = [
        {"params": groups[scale, decay], "lr_scale": scale, "weight_decay": decay}
        for scale, decay in sorted(groups, reverse=True)
    ]
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(described, lr=config.learning_rate, betas=betas, eps=1e-6, fused=True)


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Return the rate at `progress`, the share of the run's samples trained: linear from 0, then a cosine to 0.

    Of samples and not of steps, so that a run resumed with another batch size or world size goes on along the
    same curve.
    """
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    decayed = min(1.0, (progress - config.warmup) / max(1e-12, 1.0 - config.warmup))
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * decayed))


def _lr_scale(name: str, config: TrainConfig) -> float:
    """Return what the learning rate is multiplied by for a parameter of this name; 1 for the logit scale."""
    part = name.removeprefix("module.")  # DDP's
    if part.startswith("kee."):
        return config.lr_scale_kee
    if part.startswith(f"{CLIP_PREFIX}visual."):
        return config.lr_scale_image
    return config.lr_scale_text if part.startswith(CLIP_PREFIX) else 1.0


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the repeated blocks of towers and KEE, inner ones first, as `fully_shard` wants them.

    By the names that open_clip ("resblocks"), timm ("blocks", in each stage of a convolutional tower; Swin's
    "layers") and the KEE ("layers") give their lists of blocks.
    """
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, nn.ModuleList | nn.Sequential) and name.rpartition(".")[2] in BLOCK_LISTS:
            yield from (block for block in module if any(True for _ in block.parameters()))
