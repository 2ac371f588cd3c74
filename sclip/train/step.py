"""One training step: takes a rank's batch and the run's progress, updates the weights and returns values to log.

It is plain torch and runs under Ray Train, torchrun or in a notebook. Nothing in a step waits for the device: values
are returned as tensors, and the caller reads them when it reports.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config
from sclip.model.losses import structure_loss
from sclip.model.structure_clip import StructureCLIP
from sclip.train.optimizer import learning_rate
from sclip.train.sharding import fits_whole, needs_autocast

__all__ = ["MAX_LOGIT_SCALE", "NEGATIVE_COLUMNS", "TrainStep", "passes_of", "unwrapped"]

MAX_LOGIT_SCALE = 100.0
"""Upper bound of the logit scale, as in CLIP (Radford et al. 2021, 2.5): above it training becomes unstable."""

NEGATIVE_COLUMNS = ("negative_text", "negative_end", "negative_triples", "has_negative")
"""Batch columns of negatives, which the step leaves out with `loss.negatives=none`."""

UNIT_COLUMNS = ("unit_text", "unit_end", "unit_triples", "has_unit")
"""Batch columns of caption parts (units), present only with `loss.units`."""

POSITIVE_COLUMNS = ("positive_text", "positive_end", "positive_triples", "has_positive")
"""Batch columns of other wordings (positives), present only with `loss.positives`."""


class TrainStep:
    """Forward, loss, backward, clipping and update of one wrapped model and its optimizer."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Config,
        teacher: nn.Module | None = None,
    ) -> None:
        """`model` comes from `sharding.apply`, `teacher` from `sharding.apply_frozen`; `optimizer` must be fused."""
        self.model, self.optimizer, self.config, self.teacher = model, optimizer, config, teacher
        self.before_update: Callable[[], None] = lambda: None
        """Function that each step calls before it changes any weight."""
        self._plain = unwrapped(model)
        self._fits_whole = fits_whole(model)
        # FSDP casts by its own policy, per group. Without FSDP, or if the model needs it, autocast computes in bf16.
        self._autocast = config.train.precision == "bf16" and (
            needs_autocast(self._plain) or not isinstance(self._plain.logit_scale.log, DTensor)
        )

    def __call__(self, batch: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Train on one batch on the model's device (see `StructureCLIP.forward`). All ranks call it together.

        `progress` is the finished share of the run, 0 to 1. Returns scalars, the same on every rank: those of
        `structure_loss`, logit_scale, logit_bias (only with the sigmoid loss), grad_norm (before clipping),
        learning_rate, and skipped. If skipped is 1, the loss or gradient is not finite, and no rank made an update.
        """
        rate = learning_rate(progress, self.config.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        if self.config.loss.negatives == "none":
            batch = {name: tensor for name, tensor in batch.items() if name not in NEGATIVE_COLUMNS}
        self.model.train()
        passes = passes_of(len(batch["image_digest"]), self.config.train.micro_batch)
        taught = self._taught(batch, passes)
        if passes == 1:
            features, metrics = self._backward(batch, progress, taught)
        else:
            features, metrics = self._backward_in_parts(batch, progress, taught, passes)
        metrics["grad_norm"] = self._clip()
        finite = metrics["loss"].isfinite() & metrics["grad_norm"].isfinite()
        metrics["skipped"] = (~finite).float()
        # The fused kernel reads this on the device and changes nothing if it is 1. torch.amp.GradScaler sets it too.
        self.optimizer.found_inf = metrics["skipped"]  # type: ignore[attr-defined]
        self.before_update()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self._plain.logit_scale.log.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
        metrics["logit_scale"] = features["logit_scale"].detach()
        if self.config.loss.contrastive == "sigmoid":
            metrics["logit_bias"] = features["logit_bias"].detach()
        metrics["learning_rate"] = torch.full_like(metrics["loss"], rate)
        return metrics

    def _features(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=self._autocast):
            features: dict[str, Tensor] = model(batch)
        return features

    @torch.no_grad()
    def _taught(self, batch: Mapping[str, Tensor], passes: int) -> dict[str, Tensor] | None:
        """Return the teacher's features of images and captions, computed in `passes` parts; None without a teacher."""
        if self.teacher is None:
            return None
        unread = (*NEGATIVE_COLUMNS, *UNIT_COLUMNS, *POSITIVE_COLUMNS)
        captions = {name: column for name, column in batch.items() if name not in unread}
        taught = _joined([self._features(self.teacher, part) for part in _parts(captions, passes)])
        if isinstance(self.teacher, FSDPModule):
            self.teacher.reset_iter_state()  # FSDP2 records each forward until a backward, which never comes
        return taught

    def _backward(
        self, batch: Mapping[str, Tensor], progress: float, taught: dict[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        features = self._features(self.model, batch)
        loss, metrics = structure_loss(features, batch, self.config.loss, progress, taught)
        loss.backward()  # type: ignore[no-untyped-call]
        return features, metrics

    def _backward_in_parts(
        self, batch: Mapping[str, Tensor], progress: float, taught: dict[str, Tensor] | None, passes: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Do as `_backward`, but hold activations of only one of `passes` equal parts (GradCache, Gao et al. 2021)."""
        parts = _parts(batch, passes)
        device = batch["image"].device
        states, cached = [], []
        with torch.no_grad():  # the features of all parts, without activations
            for part in parts:
                states.append(_random_state(device))
                cached.append(self._features(self.model, part))
        # The loss of the whole batch gives the features' gradients.
        leaves = {name: feature.requires_grad_() for name, feature in _joined(cached).items()}
        loss, metrics = structure_loss(leaves, batch, self.config.loss, progress, taught)
        loss.backward()  # type: ignore[no-untyped-call]
        # Compute each part again, and propagate its features' gradients to the parameters.
        for k, part in enumerate(parts):
            last = k == passes - 1
            _set_random_state(states[k], device)  # so that both passes drop the same units
            with self._exchanging_gradients(last):
                features = self._features(self.model, part)
                surrogate = torch.zeros((), device=device)
                for name, feature in features.items():
                    gradient = leaves[name].grad
                    assert gradient is not None
                    if feature.ndim:
                        gradient = gradient.chunk(passes)[k]
                    elif not last:  # logit scale and bias: add the whole batch's gradient only once
                        gradient = torch.zeros_like(gradient)
                    surrogate = surrogate + (feature * gradient).sum()
                surrogate.backward()  # type: ignore[no-untyped-call]
        return leaves, metrics

    def _exchanging_gradients(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a part's forward and backward. If possible, only the last part exchanges gradients."""
        if isinstance(self.model, FSDPModule):
            if self._fits_whole:  # each rank keeps all parameters and gradients until then: at most 8 GB
                self.model.set_requires_gradient_sync(last)
                self.model.set_reshard_after_backward(last)
            else:  # each part gathers parameters and shards gradients, to save memory; HSDP's groups exchange them once
                self.model.set_requires_all_reduce(last)
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _clip(self) -> Tensor:
        bound = self.config.train.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def passes_of(rows: int, micro_batch: int) -> int:
    """Return the largest number of equal parts of `rows` with at least `micro_batch` rows each (0: all rows)."""
    # `micro_batch` may not divide `rows`, because a worker can have a few rows more or fewer in a step than its share.
    most = max(1, rows // micro_batch) if micro_batch else 1
    return next(passes for passes in range(most, 0, -1) if rows % passes == 0)


def _parts(batch: Mapping[str, Tensor], passes: int) -> list[dict[str, Tensor]]:
    return [{name: column.chunk(passes)[k] for name, column in batch.items()} for k in range(passes)]


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the features of the whole batch. Scalars such as the logit scale are equal in all parts."""
    return {
        name: torch.cat([part[name] for part in parts]) if first.ndim else first
        for name, first in parts[0].items()
    }


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if cuda else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def unwrapped(model: nn.Module) -> StructureCLIP:
    """Return the `StructureCLIP` inside the model that `sharding.apply` returned."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, StructureCLIP)
    return inner
