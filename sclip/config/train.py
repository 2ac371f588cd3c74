"""Settings of the training loop, its workers, optimizer, health checks and checkpoints."""

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
    """Exact number of times that every sample is trained on."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Samples per step, all workers together. The contrastive loss compares all of them with each other."""
    num_workers: Annotated[int, at_least(0, "0 (the cluster decides) or more")] = 0
    """Ray Train workers (one GPU each with `use_gpu`). 0: one per GPU of the cluster; without GPUs, one on CPUs."""
    min_workers: Annotated[int, at_least(0)] = 0
    """Minimum workers to train with while the cluster has no room for num_workers; 0: train only with num_workers."""
    resize_every_s: Annotated[float, POSITIVE] = 60.0
    """Seconds between checks whether more workers fit. Adding workers writes a checkpoint and restarts all workers."""
    collective_timeout_s: Annotated[float, POSITIVE] = 1800.0
    """Seconds that a worker waits in a collective for the slowest worker (late data, say). Then all workers restart."""
    use_gpu: bool | None = None
    """true: train on GPUs with nccl; false: on CPUs with gloo; null: on GPUs if the cluster has one for each worker."""
    worker_cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs that one training worker reserves."""
    worker_threads: Annotated[int, at_least(1)] = 1
    """torch threads of one worker on CPUs."""
    sharding: Literal["auto", "ddp", "hsdp", "fsdp"] = "auto"
    """ddp: DDP; hsdp: FSDP2 within each node; fsdp: FSDP2 over all workers. auto: a replica on each worker up to 10^9
    parameters or with one worker on each node; otherwise hsdp on several equal nodes, else fsdp."""
    shard_ranks: Annotated[int, at_least(0, "0 (the workers of one node) or more")] = 0
    """For sharding=hsdp: number of workers that hold one replica together; 0: the workers of one node."""
    reshard_after_forward: bool = True
    """With FSDP2, free a block's gathered weights after its forward pass. With micro_batch, a model of up to 10^9
    parameters keeps them in any case."""
    activation_checkpointing: Literal["none", "block", "selective"] = "none"
    """Activations kept for backward, in each block. block: only its inputs; selective: also the outputs of matrix
    products and attention; none: all activations."""
    compile: bool = False
    """Compile the blocks of towers and encoder with torch.compile; the first step then takes a minute or more."""
    deterministic: bool = False
    """Use slower algorithms of torch, cuDNN and NCCL, so that two runs on equal GPUs are equal bit for bit. Runs on
    CPUs are equal without it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward in bfloat16, with fp32 master weights and reductions."""
    micro_batch: Annotated[int, at_least(0)] = 0
    """Samples that a worker computes at a time (GradCache); the loss still sees the whole batch. 0: all at once."""
    pack_text: bool = True
    """Compute captions side by side without padding, if the text tower allows it (causal attention)."""
    learning_rate: Annotated[float, POSITIVE] = 2e-6
    """Peak learning rate of AdamW."""
    lr_scale_image: Annotated[float, _SCALE] = 1.0
    """Factor on the learning rate for the image tower; 0: frozen."""
    lr_scale_text: Annotated[float, _SCALE] = 1.0
    """Factor on the learning rate for the text tower, word table included; 0: frozen."""
    lr_scale_kee: Annotated[float, _SCALE] = 1.0
    """Factor on the learning rate for the knowledge encoder, which often starts untrained beside pretrained towers."""
    weight_decay: Annotated[float, at_least(0)] = 0.1
    """AdamW's weight decay of matrices; vectors, gains and the logit scale are not decayed."""
    beta2: Annotated[float, Limit("at least 0, below 1", lambda value: 0 <= value < 1)] = 0.98
    """AdamW's second-moment decay."""
    warmup: Annotated[float, SHARE] = 0.05
    """Share of all samples in the warm-up, during which the learning rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up, by the share of samples trained. cosine and linear: it falls to 0."""
    max_grad_norm: Annotated[float, OFF_OR_MORE] = 1.0
    """Maximum global norm that gradients are scaled down to; 0: no clipping."""
    log_every: Annotated[int, at_least(1)] = 10
    """Steps between metric reports."""
    ema_decay: Annotated[float, Limit("0 (off) or more, below 1", lambda value: 0 <= value < 1)] = 0.0
    """Decay per step, such as 0.9999, of an average of the weights. The average is evaluated and exported. 0: off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.batch_size >= self.num_workers,
            "batch_size", f"at least one sample for each of train.num_workers={self.num_workers}",
        )  # fmt: skip
        self.require(
            self.min_workers <= (self.num_workers or self.min_workers),
            "min_workers", f"0, or 1 to train.num_workers={self.num_workers}",
        )  # fmt: skip
        self.require(
            self.sharding != "hsdp" or self.min_workers in (0, self.num_workers),
            "min_workers",
            "train.sharding=hsdp needs a fixed number of workers; fsdp and ddp take any number",
        )
        fewest = self.min_workers or self.num_workers
        for workers in range(fewest, self.num_workers + 1) if self.num_workers else ():
            share = -(-self.batch_size // workers)
            self.require(
                self.micro_batch == 0 or share % self.micro_batch == 0,
                "micro_batch",
                f"must be 0 or divide a worker's share of train.batch_size ({share} with {workers} workers)",
            )
        if self.shard_ranks:
            self.require(
                self.sharding == "hsdp",
                "shard_ranks", f"needs train.sharding=hsdp, not {self.sharding}",
            )  # fmt: skip
            self.require(
                self.num_workers % self.shard_ranks == 0,
                "shard_ranks", f"0 (the workers of one node), or a divisor of train.num_workers={self.num_workers}",
            )  # fmt: skip


_PROFILED = Limit(
    "a first step and a number of steps, both 1 or more; 0 0: no profile",
    lambda steps: min(steps) >= 1 or steps == (0, 0),
)


@dataclass(frozen=True)
class HealthConfig(Section, key="health"):
    """What to do after a step whose loss or gradient is not finite, and which steps to profile."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not finite makes no update. stop: then end the run; skip: go on."""
    max_skipped: Annotated[int, at_least(1, "at least 1 (or on_nonfinite=stop)")] = 10
    """For on_nonfinite=skip: maximum skipped steps in the whole run. One more stops the run."""
    profile_steps: Annotated[tuple[int, int], _PROFILED] = (0, 0)
    """First step (from 1) and number of steps that each worker traces into a file of the run's folder. 0 0: none."""


@dataclass(frozen=True)
class CheckpointConfig(Section, key="checkpoint"):
    """Checkpoints of a run: weights, optimizer state and position in the data."""

    every: Annotated[int, at_least(1)] = 500
    """Steps between checkpoints; one is also written at the end."""
    keep_last: Annotated[int, at_least(1)] = 2
    """Number of newest checkpoints to keep."""
    keep_best: Annotated[int, at_least(0, "0 (none) or more")] = 0
    """Number of checkpoints with the best values of `best_metric` to keep as well. 0: none."""
    best_metric: str = "loss"
    """Training metric that ranks checkpoints, by the last value reported before each checkpoint."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of `best_metric` is best."""
    asynchronous: bool = True
    """Write checkpoints while training goes on. False: training waits for each checkpoint."""
    disk_budget_gb: Annotated[float, at_least(0, "0 (no bound) or more")] = 0.0
    """Maximum total size of a run's checkpoints, in 10^9 bytes; older ones are removed to fit. 0: no limit."""
