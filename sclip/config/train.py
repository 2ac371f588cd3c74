"""The training loop, its optimizer, workers and checkpoints, and what is watched in it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

from sclip.config.checks import OFF_OR_MORE, POSITIVE, SHARE, Limit, Section, at_least

_SCALE = Limit("0 (frozen) or more", lambda scale: 0 <= scale < inf)


@dataclass(frozen=True)
class TrainConfig(Section, key="train"):
    """The training loop and its workers."""

    epochs: Annotated[int, at_least(1)] = 10
    """Times that every sample is trained on, exactly."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Samples a step over all workers, however many there are; the contrastive loss sees all of them."""
    num_workers: Annotated[int, at_least(0, "0 (by the cluster) or more")] = 0
    """Ray Train workers (one GPU each with `use_gpu`). 0: one for each GPU of the cluster; without any one, on CPUs."""
    min_workers: Annotated[int, at_least(0)] = 0
    """Train with as few as these while the cluster has no room for num_workers; 0: with all of them or not at all."""
    resize_every_s: Annotated[float, POSITIVE] = 60.0
    """How often room for more workers is looked for; each growth is a checkpoint and a restart of the workers."""
    use_gpu: bool | None = None
    """Train on GPUs with nccl; false: on CPUs with gloo. null: on GPUs where the cluster has one for each worker."""
    worker_cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs that one training worker reserves."""
    worker_threads: Annotated[int, at_least(1)] = 1
    """torch threads of a CPU worker."""
    sharding: Literal["fsdp", "hsdp", "ddp"] = "fsdp"
    """fsdp: FSDP2 fully_shard per block; hsdp: the same in each node, which has a replica; ddp: one on every worker."""
    shard_ranks: Annotated[int, at_least(0, "0 (those of one node) or more")] = 0
    """Workers that a replica is sharded over with hsdp; 0: those of one node."""
    reshard_after_forward: bool = True
    """Free what a block gathered after forward, gather it again backward; false: less traffic, more memory."""
    activation_checkpointing: Literal["none", "block", "selective"] = "none"
    """block: keep only the blocks' inputs for backward; selective: also what matrix products and attention gave."""
    compile: bool = False
    """torch.compile the blocks of towers and encoder; the first step then takes a minute or more."""
    deterministic: bool = False
    """Two runs on equal GPUs give equal bits, as on CPUs they do: slower, by what torch, cuDNN and NCCL have for it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward in bfloat16, fp32 master weights and reductions."""
    micro_batch: Annotated[int, at_least(0)] = 0
    """Samples that a worker computes at a time (GradCache); the loss sees the batch whole. 0: its whole share."""
    pack_text: bool = True
    """Compute captions side by side without their padding, where the text tower allows (causal attention)."""
    learning_rate: Annotated[float, POSITIVE] = 2e-6
    """Peak learning rate of AdamW."""
    lr_scale_image: Annotated[float, _SCALE] = 1.0
    """Times the learning rate for the image tower; 0: frozen."""
    lr_scale_text: Annotated[float, _SCALE] = 1.0
    """The same for the text tower, word table included."""
    lr_scale_kee: Annotated[float, _SCALE] = 1.0
    """The same for the knowledge-enhanced encoder, which starts untrained where the towers may not."""
    weight_decay: Annotated[float, at_least(0)] = 0.1
    """AdamW's decay of matrices; vectors, gains and the logit scale are not decayed."""
    beta2: Annotated[float, Limit("0 to below 1", lambda value: 0 <= value < 1)] = 0.98
    """AdamW's second-moment decay."""
    warmup: Annotated[float, SHARE] = 0.05
    """Share of all samples over which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls to 0 after the warm-up, by the share of samples trained; constant: it stays."""
    max_grad_norm: Annotated[float, OFF_OR_MORE] = 1.0
    """Gradients are scaled down to this global norm; 0: not clipped."""
    log_every: Annotated[int, at_least(1)] = 10
    """Steps between two metric reports."""
    ema_decay: Annotated[float, Limit("0 (none) to below 1", lambda value: 0 <= value < 1)] = 0.0
    """Keep a moving average of the weights, which is evaluated and exported: share kept a step, 0.9999. 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.batch_size >= self.num_workers,
            "batch_size", f"at least one for each of train.num_workers={self.num_workers}",
        )  # fmt: skip
        self.require(
            self.min_workers <= (self.num_workers or self.min_workers),
            "min_workers", f"0, or 1 to train.num_workers={self.num_workers}",
        )  # fmt: skip
        self.require(
            self.sharding != "hsdp" or self.min_workers in (0, self.num_workers),
            "min_workers",
            "train.sharding=hsdp divides a fixed number of workers into groups; fsdp and ddp take any number",
        )
        fewest = self.min_workers or self.num_workers
        for workers in range(fewest, self.num_workers + 1) if self.num_workers else ():
            share = -(-self.batch_size // workers)
            self.require(
                self.micro_batch == 0 or share % self.micro_batch == 0,
                "micro_batch",
                f"0, or a divisor of a worker's share of train.batch_size, {share} with {workers} workers",
            )
        if self.shard_ranks:
            self.require(
                self.sharding == "hsdp",
                "shard_ranks", f"only train.sharding=hsdp has groups, not {self.sharding}",
            )  # fmt: skip
            self.require(
                self.num_workers % self.shard_ranks == 0,
                "shard_ranks", f"0 (those of a node), or a divisor of train.num_workers={self.num_workers}",
            )  # fmt: skip


_PROFILED = Limit(
    "a first step and a number of steps, 1 or more; 0 0: none",
    lambda steps: min(steps) >= 1 or steps == (0, 0),
)


@dataclass(frozen=True)
class HealthConfig(Section, key="health"):
    """What is watched in a run, and when it stops."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Of a step whose loss or gradient is not finite no update is made; stop: the run ends; skip: it goes on."""
    max_skipped: Annotated[int, at_least(1, "at least 1 (or on_nonfinite=stop)")] = 10
    """Steps that `skip` may leave out in the whole run; one more stops it."""
    profile_steps: Annotated[tuple[int, int], _PROFILED] = (0, 0)
    """First step (from 1) and number of steps of a profiler trace, a file a worker in the run's folder. 0 0: none."""


@dataclass(frozen=True)
class CheckpointConfig(Section, key="checkpoint"):
    """Checkpoints of a run: weights, optimizer and where the data stands."""

    every: Annotated[int, at_least(1)] = 500
    """Steps between two checkpoints; one is also written at the end."""
    keep_last: Annotated[int, at_least(1)] = 2
    """Newest checkpoints that are kept."""
    keep_best: Annotated[int, at_least(0, "0 (none) or more")] = 0
    """Checkpoints that are kept beside these for the best value of `best_metric`; 0: none."""
    best_metric: str = "loss"
    """Training metric, as reported last before the checkpoint, by which the best are told."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of it is best."""
    asynchronous: bool = True
    """Write while training goes on; off: training waits until it is written."""
    disk_budget_gb: Annotated[float, at_least(0, "0 (no bound) or more")] = 0.0
    """Most that the checkpoints of a run may take, in 10^9 bytes; older ones give way. 0: no bound."""
