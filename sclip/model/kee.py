"""The knowledge-enhanced encoder (KEE): encode a caption's triples as one vector.

Token ids of phrases go in; the knowledge feature E_KE and a mask of the captions with triples come out. There are no
position embeddings, so the result does not depend on the order of the triples or on masked triples between them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclip.config import KEEConfig
from sclip.model.packing import attention_mask
from sclip.model.tokenizer import PADDING

__all__ = ["KnowledgeEncoder", "negatives_unseen", "phrase_means"]


def phrase_means(phrases: Tensor, table: Tensor) -> Tensor:
    """Return the mean embedding [..., W] of each phrase [..., T], zeros if empty, from a word table [V, W]."""
    bags = phrases.flatten(0, -2).long()
    # Padding gets weight 0 instead of a padding id: no id is unused in all tokenizers.
    weights = (bags != PADDING).to(table.dtype)
    bags = bags.clamp(min=0)
    if torch.compiler.is_exporting():  # ONNX would turn embedding_bag into a loop over phrases
        sums = (F.embedding(bags, table) * weights.unsqueeze(-1)).sum(1)
    else:  # without storing [..., T, W], nearly a gigabyte for 8,192 captions
        sums = F.embedding_bag(bags, table, mode="sum", per_sample_weights=weights)
    means = sums / weights.sum(1, keepdim=True).clamp(min=1.0)
    return means.view(*phrases.shape[:-1], table.shape[1])


def negatives_unseen(batch: Mapping[str, Tensor]) -> Tensor:
    """Return bool [B, M]: which negatives the KEE cannot tell from their caption.

    They have the caption's triples in any order, after the tokenizer's cut to K triples with T tokens per phrase: under
    2 % of the negatives of alt-text. `batch` holds has_negative [B, M], triples [B, K, 3, T] and negative_triples.
    """
    triples, negative_triples = batch["triples"].flatten(2), batch["negative_triples"].flatten(3)
    # Count how often each of the caption's triples occurs on both sides: counts ignore the order.
    in_caption = (triples[:, :, None] == triples[:, None]).all(-1).sum(-1)
    in_negative = (triples[:, None, :, None] == negative_triples[:, :, None]).all(-1).sum(-1)
    return (in_caption[:, None] == in_negative).all(2) & batch["has_negative"]


class KnowledgeEncoder(nn.Module):
    """Transformer over the embeddings of a caption's triples, followed by a masked mean pool and a projection."""

    def __init__(self, table: nn.Embedding, features: int, config: KEEConfig) -> None:
        """Copy the text tower's word table if `config.own_embeddings`; otherwise, callers pass it to `forward`."""
        super().__init__()
        self.form, self.heads = config.form, config.heads
        width = table.embedding_dim
        # Word embeddings start near 0.02. Without this norm, the first layer's output would drown them in the sum.
        self.ln_pre = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                config.heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.ln_post = nn.LayerNorm(width)
        self.projection = nn.Linear(width, features, bias=False)
        self.join = nn.Linear(3 * width, width, bias=False) if config.form == "concatenation" else None
        self.token_embedding = copy.deepcopy(table) if config.own_embeddings else None

    def forward(
        self,
        triples: Tensor,
        table: Tensor | None = None,
        owner: Tensor | None = None,
        slot: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the unnormalized E_KE [N, D], and a mask bool [N] of the captions that have a triple.

        `triples` are token ids [N, K, 3, T] of (head, relation, tail), padded with -1: K triples per caption, T tokens
        per phrase. For the packed_triples [S, P, 3, T] of `sclip.model.packing`, pass packed_owner [S, P] as `owner`
        and triple_slot [N, K] as `slot`. Pass the word table [V, W] if the encoder keeps no copy. For a caption without
        a triple, E_KE is finite but meaningless.
        """
        # Read the table here, not in the caller: FSDP2 gathers this module's weights when the module is called.
        if self.token_embedding is not None:
            table = self.token_embedding.weight
        assert table is not None, "pass a word table: this encoder has none"
        hidden = self.ln_pre(self._embed(phrase_means(triples, table)))  # [N, K, W]; packed: [S, P, W]
        if owner is None or slot is None:
            kept = (triples != PADDING).flatten(2).any(-1)
            # Rows without triples attend to their first slot: a softmax over no key would be NaN, also in backward.
            attended = torch.cat([kept[:, :1] | ~kept.any(-1, keepdim=True), kept[:, 1:]], dim=1)
            for layer in self.layers:
                hidden = layer(hidden, src_key_padding_mask=~attended)
        else:
            mask = attention_mask(owner, self.heads, hidden.dtype, causal=False)
            for layer in self.layers:
                hidden = layer(hidden, src_mask=mask)
            kept = slot >= 0
            hidden = hidden.flatten(0, 1).index_select(0, slot.clamp(min=0).flatten()).view(*slot.shape, -1)
        weights = kept.to(hidden.dtype).unsqueeze(-1)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.projection(self.ln_post(pooled)), kept.any(-1)

    def _embed(self, phrases: Tensor) -> Tensor:
        if self.join is not None:
            embedded: Tensor = self.join(phrases.flatten(-2))
            return embedded
        head, relation, tail = phrases.unbind(2)
        return head + relation + tail if self.form == "sum" else head + relation - tail
