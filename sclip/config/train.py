"""The training loop, its optimizer and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from sclip.config.checks import require


@dataclass(frozen=True)
class TrainConfig:
    """The training loop and its workers."""

    epochs: int = 10
    """Times that every sample is trained on, exactly."""
    batch_size: int = 256
    """Samples a step over all workers, however many there are; the contrastive loss sees all of them."""
    num_workers: int = 0
    """Ray Train workers (one GPU each with `use_gpu`). 0: one for each GPU of the cluster; without any one, on CPUs."""
    min_workers: int = 0
    """Train with as few as these while the cluster has no room for num_workers; 0: with all of them or not at all."""
    resize_every_s: float = 60.0
    """How often room for more workers is looked for; each growth is a checkpoint and a restart of the workers."""
    use_gpu: bool | None = None
    """Train on GPUs with nccl; false: on CPUs with gloo. null: on GPUs where the cluster has one for each worker."""
    worker_cpus: float = 1.0
    """CPUs that one training worker reserves."""
    worker_threads: int = 1
    """torch threads of a CPU worker."""
    sharding: Literal["fsdp", "hsdp", "ddp"] = "fsdp"
    """fsdp: FSDP2 fully_shard per block; hsdp: the same in each node, which has a replica; ddp: one on every worker."""
    shard_ranks: int = 0
    """Workers that a replica is sharded over with hsdp; 0: those of one node."""
    reshard_after_forward: bool = True
    """Free what a block gathered after forward, gather it again backward; false: less traffic, more memory."""
    activation_checkpointing: Literal["none", "block", "selective"] = "none"
    """block: keep only the blocks' inputs for backward; selective: also what matrix products and attention gave."""
    compile: bool = False
    """torch.compile the blocks of towers and encoder; the first step then takes a minute or more."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward in bfloat16, fp32 master weights and reductions."""
    micro_batch: int = 0
    """Samples that a worker computes at a time (GradCache); the loss sees the batch whole. 0: its whole share."""
    pack_text: bool = True
    """Compute captions side by side without their padding, where the text tower allows (causal attention)."""
    learning_rate: float = 2e-6
    """Peak learning rate of AdamW."""
    lr_scale_image: float = 1.0
    """Times the learning rate for the image tower; 0: frozen."""
    lr_scale_text: float = 1.0
    """The same for the text tower, word table included."""
    lr_scale_kee: float = 1.0
    """The same for the knowledge-enhanced encoder, which starts untrained where the towers may not."""
    weight_decay: float = 0.1
    """AdamW's decay of matrices; vectors, gains and the logit scale are not decayed."""
    beta2: float = 0.98
    """AdamW's second-moment decay."""
    warmup: float = 0.05
    """Share of all samples over which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls to 0 after the warm-up, by the share of samples trained; constant: it stays."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: not clipped."""
    log_every: int = 10
    """Steps between two metric reports."""
    ema_decay: float = 0.0
    """Keep a moving average of the weights, which is evaluated and exported: share kept a step, 0.9999. 0: none."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "worker_threads",
            "log_every",
        ):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require(self.num_workers >= 0, "train.num_workers", self.num_workers, "0 (by the cluster) or more")
        require(
            self.batch_size >= self.num_workers,
            "train.batch_size", self.batch_size, f"at least one for each of train.num_workers={self.num_workers}",
        )  # fmt: skip
        require(
            0 <= self.min_workers <= (self.num_workers or self.min_workers),
            "train.min_workers", self.min_workers, f"0, or 1 to train.num_workers={self.num_workers}",
        )  # fmt: skip
        require(self.resize_every_s > 0, "train.resize_every_s", self.resize_every_s, "must be above 0")
        require(
            self.sharding != "hsdp" or self.min_workers in (0, self.num_workers),
            "train.min_workers", self.min_workers,
            "train.sharding=hsdp divides a fixed number of workers into groups; fsdp and ddp take any number",
        )  # fmt: skip
        fewest = self.min_workers or self.num_workers
        for workers in range(fewest, self.num_workers + 1) if self.num_workers else ():
            share = -(-self.batch_size // workers)
            require(
                self.micro_batch == 0 or (0 < self.micro_batch <= share and share % self.micro_batch == 0),
                "train.micro_batch", self.micro_batch,
                f"0, or a divisor of a worker's share of train.batch_size, {share} with {workers} workers",
            )  # fmt: skip
        require(
            self.shard_ranks == 0 or self.sharding == "hsdp",
            "train.shard_ranks", self.shard_ranks, f"only train.sharding=hsdp has groups, not {self.sharding}",
        )  # fmt: skip
        require(
            self.shard_ranks == 0 or (self.shard_ranks > 0 and self.num_workers % self.shard_ranks == 0),
            "train.shard_ranks", self.shard_ranks,
            f"0 (those of a node), or a divisor of train.num_workers={self.num_workers}",
        )  # fmt: skip
        require(self.worker_cpus > 0, "train.worker_cpus", self.worker_cpus, "must be above 0")
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "must be above 0")
        for name in ("lr_scale_image", "lr_scale_text", "lr_scale_kee"):
            scale = getattr(self, name)
            require(0 <= scale < inf, f"train.{name}", scale, "0 (frozen) or more")
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "0 (none) to below 1")
        require(0 <= self.beta2 < 1, "train.beta2", self.beta2, "0 to below 1")
        require(0 <= self.warmup <= 1, "train.warmup", self.warmup, "a share of the run, 0 to 1")
        require(self.max_grad_norm >= 0, "train.max_grad_norm", self.max_grad_norm, "0 (off) or more")
