"""One training step: a rank's batch and the run's progress in, updated weights and values to log out.

Plain torch, so that it runs under Ray Train, torchrun or in a notebook alike. Nothing in a step waits for
the device: values come back as tensors, and the caller reads them when it reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config
from sclip.model.losses import structure_loss
from sclip.model.structure_clip import StructureCLIP
from sclip.train.sharding import learning_rate

__all__ = ["MAX_LOGIT_SCALE", "TrainStep", "TrainingDiverged", "unwrapped"]

MAX_LOGIT_SCALE = 100.0
"""Bound of the logit scale, as in CLIP (Radford et al. 2021, 2.5): above it training becomes unstable."""

_NEGATIVE_KEYS = ("negative_text", "negative_triples", "has_negative")


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is no longer finite; weights since the last report cannot be trusted."""


class TrainStep:
    """Forward, loss, backward, clipping and update of one wrapped model and its optimizer."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, config: Config) -> None:
        """Take the model as `sharding.apply` returned it and the optimizer made for it."""
        self.model, self.optimizer, self.config = model, optimizer, config
        self._plain = unwrapped(model)
        # FSDP casts by its own policy, per group; everything else computes in bf16 through autocast.
        self._autocast = config.train.precision == "bf16" and not isinstance(
            self._plain.logit_scale.log, DTensor
        )

    def __call__(self, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Train on one batch of the model's device (see `StructureCLIP.forward`), on all ranks together.

        `progress` is the share of the run's samples that are trained, 0 to 1. Returns scalars, the same on
        every rank: those of `structure_loss`, logit_scale, with the sigmoid logit_bias, grad_norm (before
        clipping) and learning_rate.
        """
        rate = learning_rate(progress, self.config.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        if self.config.loss.negatives == "none":
            batch = {name: tensor for name, tensor in batch.items() if name not in _NEGATIVE_KEYS}
        self.model.train()
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=self._autocast):
            features = self.model(batch)
        loss, metrics = structure_loss(features, batch, self.config.loss, progress)
        loss.backward()  # type: ignore[no-untyped-call]
        metrics["grad_norm"] = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self._plain.logit_scale.log.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
        metrics["logit_scale"] = features["logit_scale"].detach()
        if self.config.loss.contrastive == "sigmoid":
            metrics["logit_bias"] = features["logit_bias"].detach()
        metrics["learning_rate"] = torch.tensor(rate)
        return metrics

    def check(self, metrics: Mapping[str, Tensor]) -> None:
        """Raise `TrainingDiverged` if these metrics are not finite; reads them, so once a report is enough.

        Call it before a checkpoint is written too, or a diverged state becomes the one to resume from.
        """
        bad = {
            name: float(metrics[name]) for name in ("loss", "grad_norm") if not torch.isfinite(metrics[name])
        }
        if bad:
            found = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise TrainingDiverged(
                f"{found} at logit scale {float(metrics['logit_scale']):.1f}, learning rate "
                f"{float(metrics['learning_rate']):.2e}: lower train.learning_rate or raise train.warmup"
            )

    def _clip(self) -> Tensor:
        """Scale the gradients down to the configured norm; return their global norm before."""
        bound = self.config.train.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def unwrapped(model: nn.Module) -> StructureCLIP:
    """Return the `StructureCLIP` inside what `sharding.apply` returned."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, StructureCLIP)
    return inner
