"""Spread the plain model over the workers.

`apply` wraps a CPU model for this rank, in one of three ways. `resolve` chooses one for `train.sharding=auto`.

    fsdp  FSDP2 shards parameters, gradients and optimizer state over all ranks
    hsdp  FSDP2 shards them over the ranks of a group; each group (of one rank or more) holds a replica
    ddp   each rank holds a replica
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import ConfigError, TrainConfig
from sclip.model import lora
from sclip.model.structure_clip import StructureCLIP, part_of
from sclip.model.towers import block_lists
from sclip.train.optimizer import lr_scale
from sclip.train.ranks import gather_json
from sclip.train.transformer_blocks import change_forward

__all__ = ["apply", "apply_frozen", "fits_whole", "kind_of", "needs_autocast", "resolve"]

WHOLE = 1_000_000_000
"""Maximum parameters of a model that each worker can hold whole: 16 GB with gradients and moments in fp32."""

Sharding = Literal["ddp", "hsdp", "fsdp"]


def resolve(
    config: TrainConfig, parameters: int, world_size: int, ranks_of_node: int, *, autocast: bool = False
) -> tuple[Sharding, int]:
    """Return the sharding of a model with `parameters` parameters, and the size of hsdp's groups (0: a node's ranks).

    `ranks_of_node` is 0 if the nodes have unequal numbers of ranks. `train.sharding=auto` means:
        up to WHOLE parameters, or one rank on each node: a replica on each rank
        otherwise, on several nodes with equally many ranks: hsdp, which shards within each node
        otherwise, on one node or nodes with unequal numbers of ranks: fsdp

    A replica on each rank means ddp in fp32 or with `autocast` (`needs_autocast`), else hsdp with groups of one rank.
    """
    if config.sharding != "auto":
        return config.sharding, config.shard_ranks
    group = min(ranks_of_node, world_size)
    if parameters <= WHOLE or group == 1:
        # In bf16, a text block moves 69 times the bytes of its input with FSDP2, and 108 times with ddp, whose autocast
        # computes norms and sums in fp32 (`sclip.benchmark.step_traffic`).
        return ("hsdp", 1) if config.precision == "bf16" and not autocast else ("ddp", 0)
    return ("hsdp", 0) if 0 < group < world_size and world_size % group == 0 else ("fsdp", 0)


def needs_autocast(model: StructureCLIP) -> bool:
    """Return whether autocast must do the casts to bf16, because FSDP2 must not cast this model's weights."""
    # A bf16 copy of a weight would round its low-rank update away. FSDP2 casts no buffers (BatchNorm's statistics,
    # EVA's key bias, timm's relative positions), but torch refuses to multiply fp32 and bf16. Masks are cast by
    # attention or `_shard`.
    buffers = (
        name.rpartition(".")[2] for name, buffer in model.clip.named_buffers() if buffer.is_floating_point()
    )
    return model.config.lora.rank > 0 or any(name != "attn_mask" for name in buffers)


def fits_whole(model: nn.Module) -> bool:
    """Return whether each worker could hold all parameters during a step. The model may be sharded."""
    return _parameters(model) <= WHOLE


def apply(
    model: StructureCLIP,
    config: TrainConfig,
    device: torch.device,
    compile_backend: str | Callable[..., Any] = "inductor",
) -> nn.Module:
    """Return the model on `device`, wrapped as `resolve` says; unwrapped if there is no process group.

    All ranks get rank 0's weights. FSDP2 changes `model` itself and returns it. Parts with a zero learning rate are
    frozen. With `model.lora`, the towers get low-rank updates here. Raises ConfigError on every rank if the ranks
    cannot be divided into shard groups of equal size.
    """
    if model.config.lora.rank:
        lora.add(model)
    model = model.to(device)
    # Freeze before wrapping: DDP waits for the gradients of all parameters that are trainable at that time, and FSDP2
    # reduces only those.
    for name, parameter in model.named_parameters():
        if lr_scale(part_of(name), config) == 0:
            parameter.requires_grad_(False)
    change_forward(model, config, compile_backend)
    if not dist.is_initialized():
        return model
    ranks_of_node = 1 if fits_whole(model) or config.sharding != "auto" else _ranks_of_a_node()[0]
    sharding, shard_ranks = resolve(
        config, _parameters(model), dist.get_world_size(), ranks_of_node, autocast=needs_autocast(model)
    )
    if sharding == "ddp":
        return _replicate(model, config, device)
    _take_from_rank_0(model)
    _shard(model, config, _mesh(sharding, shard_ranks, config.collective_timeout_s, device))
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
    """Return the teacher on `device`, frozen and in eval mode; call it under `torch.no_grad`.

    It is sharded like `model`, which `apply` returned; with DDP, each rank has a copy. All ranks get rank 0's weights.
    """
    teacher = teacher.to(device).requires_grad_(False).eval()
    change_forward(teacher, dataclasses.replace(config, activation_checkpointing="none"), compile_backend)
    if dist.is_initialized():
        _take_from_rank_0(teacher)
    if (mesh := _mesh_of(model)) is not None:
        _shard(teacher, config, mesh)
    return teacher


def kind_of(model: nn.Module) -> str:
    """Return how `apply` wrapped this model: "fsdp", "hsdp groups of N" or "ddp" (also for an unwrapped model)."""
    mesh = _mesh_of(model)
    return "ddp" if mesh is None else "fsdp" if mesh.ndim == 1 else f"hsdp groups of {mesh.shape[1]}"


def _mesh_of(model: nn.Module) -> DeviceMesh | None:
    return next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _take_from_rank_0(model: StructureCLIP) -> None:
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)


def _replicate(model: StructureCLIP, config: TrainConfig, device: torch.device) -> DistributedDataParallel:
    # Depthwise convolutions cause this warning: with one input channel, two layouts are equal. Nothing gets slower.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if config.compile:
        # DDP would split graphs at bucket ends, so that reducing starts early; the compiled blocks are split already.
        torch._dynamo.config.optimize_ddp = False
    device_ids = [device] if device.type == "cuda" else None
    replica = DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)
    # Buffers never change, and DDP sent rank 0's above. The constructor's argument differs between torch versions.
    replica.broadcast_buffers = False
    return replica


def _shard(model: StructureCLIP, config: TrainConfig, mesh: DeviceMesh) -> None:
    half = torch.bfloat16 if config.precision == "bf16" and not needs_autocast(model) else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    # If each worker can hold the whole model, all micro-batches of a step use the same gathered weights (`TrainStep`).
    reshard = config.reshard_after_forward and not (config.micro_batch and fits_whole(model))
    shard = functools.partial(fully_shard, mesh=mesh, reshard_after_forward=reshard)
    if half is not None:
        # FSDP2 does not cast buffers. Swin adds its fp32 mask to bf16 products, and torch refuses the fp32 sum
        # beside bf16 values. The mask's values, 0 and -100, are exact in bf16.
        for module in model.clip.visual.modules():
            if isinstance(mask := module._buffers.get("attn_mask"), torch.Tensor):
                module._buffers["attn_mask"] = mask.to(half)
    for blocks in block_lists(model.clip).values():
        for block in blocks:
            shard(block, mp_policy=policy)
    # Each of these groups casts its fp32 inputs. The image tower's group holds its stem and head. The rest of the text
    # tower (word table, projection) stays in the root group, because the KEE looks words up in that table too.
    shard(model.clip.visual, mp_policy=policy)
    if model.kee is not None:  # one group: all its layers together are as large as a few blocks of a tower
        shard(model.kee, mp_policy=policy)
    shard([scalar for scalar in (model.logit_scale, model.logit_bias) if scalar is not None])
    # Backward needs the root's own parameters first, so they always stay gathered.
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _mesh(sharding: Sharding, shard_ranks: int, timeout_s: float, device: torch.device) -> DeviceMesh:
    """Return the mesh [ranks] for FSDP, or [groups, ranks of a group] for HSDP, which shards within a group."""
    world_size = dist.get_world_size()
    if sharding == "fsdp":
        return init_device_mesh(device.type, (world_size,))  # uses the default group
    group_size, counts = (shard_ranks, "") if shard_ranks else _ranks_of_a_node()
    if not group_size:
        raise ConfigError(
            f"train.shard_ranks=0: needs the same number of ranks on each node (LOCAL_WORLD_SIZE by rank: {counts}); "
            "set train.shard_ranks, or train.sharding=fsdp"
        )
    if world_size % group_size:
        raise ConfigError(
            f"train.shard_ranks={group_size}: must divide the number of ranks, {world_size}; change it or "
            "train.num_workers"
        )
    ranks = [list(range(first, first + group_size)) for first in range(0, world_size, group_size)]
    across = [list(peers) for peers in zip(*ranks, strict=True)]
    # `init_device_mesh` would make groups with torch's timeout instead of the default group's.
    timeout = timedelta(seconds=timeout_s)
    groups = {
        name: cast(dist.ProcessGroup, dist.new_subgroups_by_enumeration(members, timeout, group_desc=name)[0])
        for name, members in (("replicate", across), ("shard", ranks))
    }
    return DeviceMesh.from_group(list(groups.values()), device.type, ranks, mesh_dim_names=tuple(groups))


def _ranks_of_a_node() -> tuple[int, str]:
    """Return the number of ranks on each node (0 if nodes differ), and LOCAL_WORLD_SIZE on ranks 0, 1, ... as text."""
    world_size = dist.get_world_size()
    if world_size == 1:
        return 1, "1"
    # All ranks must get the same result: ranks with different meshes would wait for each other forever.
    local_ranks = gather_json({name: os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK")})
    ranks_per_node = int(local_ranks[0]["LOCAL_WORLD_SIZE"] or 1)
    # Ranks must be numbered node by node, else a group of neighboring ranks could span two nodes.
    expected = [
        {"LOCAL_WORLD_SIZE": str(ranks_per_node), "LOCAL_RANK": str(rank % ranks_per_node)}
        for rank in range(world_size)
    ]
    counts = ", ".join(str(variables["LOCAL_WORLD_SIZE"]) for variables in local_ranks)
    return (ranks_per_node if local_ranks == expected else 0), counts
