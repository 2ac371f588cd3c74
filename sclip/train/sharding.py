"""The plain model spread over the workers.

A CPU model goes in, the same model wrapped for this rank comes out: FSDP2 (sharded parameters, gradients and
optimizer state), within groups of ranks by option (HSDP), or DDP (a replica each). The model itself knows nothing
of it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import ConfigError, TrainConfig
from sclip.model import lora
from sclip.model.blocks import block_lists
from sclip.model.structure_clip import StructureCLIP, part_of
from sclip.train.collectives import gather_json
from sclip.train.optimizer import lr_scale
from sclip.train.transformer_blocks import change_forward

__all__ = ["apply", "apply_frozen"]


def apply(
    model: StructureCLIP,
    config: TrainConfig,
    device: torch.device,
    compile_backend: str | Callable[..., Any] = "inductor",
) -> nn.Module:
    """Return the model on `device`, wrapped as `config.sharding` says; plain where no process group is.

    Rank 0's weights are the ones that count on every rank. FSDP2 wraps in place: `model` itself is returned.
    A part whose learning rate is scaled by 0 is frozen; with `model.lora`, towers are under low-rank updates, which are
    added here. `compile_backend` is that of torch.compile, with `config.compile`. Raises ConfigError, on every rank,
    where the ranks do not make up whole shard groups.
    """
    if model.config.lora.rank:
        lora.add(model)
    model = model.to(device)
    # Before wrapping: DDP waits for the gradients of what is trainable then, and FSDP2 reduces only those.
    for name, parameter in model.named_parameters():
        if lr_scale(part_of(name), config) == 0:
            parameter.requires_grad_(False)
    change_forward(model, config, compile_backend)
    if not dist.is_initialized():
        return model
    if config.sharding == "ddp":
        return _replicate(model, config, device)
    _take_from_rank_0(model)
    _shard(model, config, _mesh(config, device))
    for method in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)
    return model


def apply_frozen(
    teacher: StructureCLIP,
    model: nn.Module,
    config: TrainConfig,
    device: torch.device,
    compile_backend: str | Callable[..., Any] = "inductor",
) -> StructureCLIP:
    """Return a teacher that only computes features, spread as `model` is, which `apply` returned; with DDP a copy each.

    Frozen and in eval mode; call it without gradient. Rank 0's weights are the ones that count.
    """
    teacher = teacher.to(device).requires_grad_(False).eval()
    change_forward(teacher, dataclasses.replace(config, activation_checkpointing="none"), compile_backend)
    if dist.is_initialized():
        _take_from_rank_0(teacher)
    sharded = next((p for p in model.parameters() if isinstance(p, DTensor)), None)
    if sharded is not None:
        root = _shard(teacher, config, sharded.device_mesh)
        # No backward follows that would need the root's own parameters. Its encode_image is not registered: called
        # within forward it would shard them again too early.
        root.set_reshard_after_forward(config.reshard_after_forward, recurse=False)
    return teacher


def _take_from_rank_0(model: StructureCLIP) -> None:
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)


def _replicate(model: StructureCLIP, config: TrainConfig, device: torch.device) -> DistributedDataParallel:
    # Of depthwise convolutions, whose one input channel makes two layouts equal; nothing is slower for it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if config.compile:
        # It would cut graphs where a bucket ends, so that reducing starts early; blocks are such pieces already.
        torch._dynamo.config.optimize_ddp = False
    device_ids = [device] if device.type == "cuda" else None
    replica = DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)
    # Buffers never change, so rank 0's are sent once, above; the argument that says so differs between torch versions.
    replica.broadcast_buffers = False
    return replica


def _shard(model: StructureCLIP, config: TrainConfig, mesh: DeviceMesh) -> FSDPModule:
    # Updates would be lost in half precision: then weights are gathered whole and autocast computes, as with DDP.
    half = torch.bfloat16 if config.precision == "bf16" and not model.config.lora.rank else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    shard = functools.partial(fully_shard, mesh=mesh, reshard_after_forward=config.reshard_after_forward)
    for blocks in block_lists(model).values():
        for block in blocks:
            shard(block, mp_policy=policy)
    # The towers' own groups: their inputs arrive in fp32 and are cast at these borders. The image tower has
    # one for its stem and head; the text tower's rest (word table, projection) stays with the root, where the
    # encoder's phrases look words up as well.
    shard(model.clip.visual, mp_policy=policy)
    if model.kee is not None:
        shard(model.kee, mp_policy=policy)
    shard(model.logit_scale)
    if model.logit_bias is not None:
        shard(model.logit_bias)
    # The root's own parameters are the first that backward needs, so they always stay gathered.
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def _mesh(config: TrainConfig, device: torch.device) -> DeviceMesh:
    """Return the mesh [ranks] of FSDP, or [groups, ranks of a group] of HSDP, which shards along the last."""
    world_size = dist.get_world_size()
    if config.sharding == "fsdp":
        return init_device_mesh(device.type, (world_size,))
    of_a_group = config.shard_ranks or _ranks_of_a_node()
    if world_size % of_a_group:
        raise ConfigError(
            f"train.shard_ranks={of_a_group}: must divide the number of ranks, {world_size}; change it or "
            "train.num_workers"
        )
    names = ("replicate", "shard")
    return init_device_mesh(device.type, (world_size // of_a_group, of_a_group), mesh_dim_names=names)


def _ranks_of_a_node() -> int:
    """Return how many ranks every node has, as Ray Train or torchrun told them; ConfigError if not all as many.

    Asked of all ranks, because a mesh that they do not agree on is one in which they wait for each other.
    """
    world_size = dist.get_world_size()
    if world_size == 1:
        return 1
    told = gather_json({name: os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK")})
    of_a_node = int(told[0]["LOCAL_WORLD_SIZE"] or 1)
    # Node after node, or a group of neighbouring ranks would lie across two.
    expected = [
        {"LOCAL_WORLD_SIZE": str(of_a_node), "LOCAL_RANK": str(rank % of_a_node)}
        for rank in range(world_size)
    ]
    if told != expected:
        found = ", ".join(str(of_rank["LOCAL_WORLD_SIZE"]) for of_rank in told)
        raise ConfigError(
            f"train.shard_ranks=0: a group is a node's ranks, of which not every node of these {world_size} ranks is "
            f"told to have as many (LOCAL_WORLD_SIZE by rank: {found}); set train.shard_ranks, or train.sharding=fsdp"
        )
    return of_a_node
