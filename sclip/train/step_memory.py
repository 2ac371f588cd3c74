"""Track the memory and the collectives of a training step on fake tensors, by phase of the step."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
from torch.distributed.tensor import DTensor

__all__ = ["StepTracker", "bytes_of", "held_bytes"]

_KINDS = {
    "all_gather": "all-gather", "allgather": "all-gather", "reduce_scatter": "reduce-scatter",
    "all_reduce": "all-reduce", "allreduce": "all-reduce", "isend": "send", "send": "send",
}  # fmt: skip
"""Kind of a collective, by a part of the name of its operator in torch."""


class StepTracker(MemTracker):
    """MemTracker that counts collectives, and keeps the peak memory of each phase: forward in the model, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, dict[str, int]] = {}
        """Bytes at the peak of each phase, by phase and then by use (MemTracker's names, such as "Total")."""
        self.counts: Counter[str] = Counter()
        """Number of collectives by kind."""
        self.sizes: Counter[str] = Counter()
        """Bytes of collectives by kind. A collective counts as its input or output, whichever is larger."""

    def _ignore(self, *_: Any) -> None:
        """Keep no figures of modules: they take most of a step's time and allow only one forward pass in a step."""

    _pre_fw_hook = _post_fw_hook = _pre_bw_hook = _post_bw_hook = _ignore  # type: ignore[assignment]

    def track_gradients(self, model: nn.Module) -> None:
        """Count a gradient as "Gradient", not as "Temp", once autograd or FSDP2 has stored it in `parameter.grad`."""

        def stored(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self._update_and_maybe_create_winfos(parameter.grad, _MemRefType.GRAD)

        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(stored)  # type: ignore[no-untyped-call]

    def _update_peak_stats(self, peak_state: Any) -> None:
        side = "in" if len(self._mod_tracker.parents) > 1 else "outside of"
        # The peak of each such phase grows linearly with the number of blocks.
        phase = f"{peak_state.value} {side} the model"
        for now in self._curr_mem_snap.values():
            if now["Total"] > self.peaks.get(phase, {}).get("Total", 0):
                self.peaks[phase] = {str(getattr(use, "value", use)): size for use, size in now.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if func.namespace in ("c10d", "_c10d_functional") and result is not NotImplemented:
            kind = next((kind for part, kind in _KINDS.items() if part in func.__name__), None)
            if kind:
                self.counts[kind] += 1
                self.sizes[kind] += max(map(bytes_of, (*args, result)))
        return result


def bytes_of(value: Any) -> int:
    """Return the bytes that this rank holds of a tensor or of nested lists of tensors; 0 for anything else."""
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0


def held_bytes(model: nn.Module) -> int:
    """Return the bytes that this rank holds of parameters and buffers."""
    return bytes_of([*model.parameters(), *model.buffers()])
