"""Compute torch's multi-head attention with fewer passes over memory (`model.attention=lean`).

nn.MultiheadAttention transposes inputs [B, L, W] (B rows of L tokens of width W) to [L, B, W]. Then it adds the bias in
a second pass and copies q, k and v. Its backward fills three zeroed tensors and adds them up. Here one linear layer
reads the input without transposing it, and q, k and v are views of the output. Parameters and their names are the same.
Gradients of the projections are equal up to rounding: rows are summed in another order.
"""

from __future__ import annotations

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LeanAttention", "make_lean", "mask_heads"]

_ATTENTION: dict[type[nn.Module], str] = {
    ResidualAttentionBlock: "attn",  # open_clip's towers
    nn.TransformerEncoderLayer: "self_attn",  # the KEE
}


class LeanAttention(nn.MultiheadAttention):
    """Self-attention of a batch [B, L, W]. `make_lean` turns existing modules into this class."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Return the output [B, L, W] and no weights. Only the query and the two masks are read.

        Masks are additive (0 or -inf), never bool. Pass at most one: `key_padding_mask` [B, L] or `attn_mask`. An
        `attn_mask` [L, L] is always taken for the causal mask, whatever its values are. Other shapes are [B, L, L] and,
        with a mask per head, [B * heads, L, L].
        """
        rows, places, width = query.shape
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        # Because of `unbind`, backward joins the three gradients in the layout of qkv by one copy.
        q, k, v = (part.transpose(1, 2) for part in qkv.view(rows, places, 3, self.num_heads, -1).unbind(2))
        mask, causal = attn_mask, attn_mask is not None and attn_mask.ndim == 2
        if key_padding_mask is not None:
            mask = key_padding_mask[:, None, None]
        elif attn_mask is not None:
            mask = None if causal else attn_mask.view(rows, -1, places, places)
        attended = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).reshape(rows, places, width)), None


def make_lean(model: nn.Module) -> None:
    """Turn the self-attention of the blocks in `_ATTENTION` into `LeanAttention`; leave other attention alone."""
    for block in model.modules():
        module = getattr(block, _ATTENTION.get(type(block), ""), None)
        if type(module) is nn.MultiheadAttention and _is_self_attention(block, module):
            module.__class__ = LeanAttention


def _is_self_attention(block: nn.Module, module: nn.MultiheadAttention) -> bool:
    return bool(
        module.batch_first
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
        and not module.dropout
        and not hasattr(block, "ln_1_kv")  # open_clip's cross-attention
    )


def mask_heads(module: nn.MultiheadAttention) -> int:
    """Return how many masks [L, L] per row this module takes: 1, or one for each head."""
    heads: int = module.num_heads
    return 1 if isinstance(module, LeanAttention) else heads
