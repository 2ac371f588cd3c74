"""Count the memory traffic of a Transformer block with plain and with lean attention, without running it.

A unit is one read or write of the block's input in bf16: [B, L, W], which is B rows of L tokens of width W. Matrix
products are not counted: arithmetic limits their speed, and memory traffic that of all other operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sclip.benchmark.isolated import Figures, Report
from sclip.benchmark.step_cases import Case
from sclip.model.attention import make_lean, mask_heads
from sclip.model.packing import attention_mask

__all__ = ["block_traffic", "traffic", "traffic_words"]

ROWS, PLACES, WIDTH, HEADS = 1024, 80, 512, 8
"""B, L, W and attention heads of packed captions in the text tower of ViT-B."""

_NOT_COUNTED = {"mm", "addmm", "_unsafe_view", "empty", "empty_like", "new_empty", "new_empty_strided"}
_ONLY_WRITE = {"new_zeros", "zeros_like", "ones_like", "fill_"}


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        if operation.namespace == "aten" and not operation.is_view and name not in _NOT_COUNTED:
            self.bytes += sum(_sizes(result)) + (0 if name in _ONLY_WRITE else sum(_sizes((args, kwargs))))
        return result


def _sizes(tree: Any) -> Iterator[int]:
    """Yield the bytes of each tensor; before expansion, if it is expanded."""
    for tensor in tree_leaves(tree):
        if isinstance(tensor, Tensor):
            yield min(tensor.nbytes, tensor.untyped_storage().nbytes())


def block_traffic(*, lean: bool, autocast: bool) -> float:
    """Return the memory traffic of a block's forward and backward pass, in the units of this module.

    Parameters are bf16 as with FSDP; with `autocast`, they are fp32 as with DDP.
    """
    dtype = torch.float32 if autocast else torch.bfloat16
    block = ResidualAttentionBlock(WIDTH, HEADS).to(dtype)
    if lean:
        make_lean(block)
    with FakeTensorMode() as fake:
        parameters: dict[str, Tensor] = {
            name: fake.from_tensor(parameter) for name, parameter in block.named_parameters()
        }
        hidden = torch.empty(ROWS, PLACES, WIDTH, dtype=dtype, requires_grad=True)
        captions = torch.zeros(ROWS, PLACES, dtype=torch.int32)
        mask = attention_mask(captions, mask_heads(block.attn), dtype, causal=True)
        gradient = torch.empty_like(hidden)
        with _Traffic() as counted:  # type: ignore[no-untyped-call]
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                output = functional_call(block, parameters, (hidden,), {"attn_mask": mask})
            output.backward(gradient)
    units: float = counted.bytes / (2 * hidden.numel())
    return units


def traffic(case: Case, rounds: int, report: Report) -> str:
    """Count the traffic of a block with bf16 parameters, and with fp32 parameters under autocast."""
    sides = {"plain": False, "lean": True}
    kinds = {"fsdp": False, "ddp": True}
    report(
        {
            f"{kind}_{side}": [block_traffic(lean=lean, autocast=autocast)]
            for kind, autocast in kinds.items()
            for side, lean in sides.items()
        }
    )
    return ""


def traffic_words(figures: Figures, _: Figures) -> str:
    """Return the traffic of lean and plain attention as text, with FSDP and with DDP."""
    units = {name: f"{values[0]:.0f}" for name, values in figures.items()}
    return (
        f"auto and FSDP {units['fsdp_lean']} (plain {units['fsdp_plain']}), DDP {units['ddp_lean']} "
        f"(plain {units['ddp_plain']}) reads and writes of [B, L, W] in bf16"
    )
