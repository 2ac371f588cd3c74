"""The knowledge-enhanced encoder: the triples of a caption to one vector (method, section 3; paper, 3.3).

Token ids of phrases go in, the knowledge feature E_KE and "this caption has triples" come out. The triples
are a set: there is no position embedding, so their order and the masked ones between them change nothing.
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
    """Return the means [..., W] over the tokens of phrases [..., T] in a word table [V, W]; of an empty one, zeros.

    Without the embedded tokens [..., T, W] in between, which for 8,192 captions are near a gigabyte.
    """
    bags = phrases.flatten(0, -2).long()
    # A weight of 0 and not a padding id, which would have to be no word of any tokenizer.
    weights = (bags != PADDING).to(table.dtype)
    bags = bags.clamp(min=0)
    if torch.compiler.is_exporting():  # ONNX has no bags: its exporter would write a loop over phrases
        sums = (F.embedding(bags, table) * weights.unsqueeze(-1)).sum(1)
    else:
        sums = F.embedding_bag(bags, table, mode="sum", per_sample_weights=weights)
    means = sums / weights.sum(1, keepdim=True).clamp(min=1.0)
    return means.view(*phrases.shape[:-1], table.shape[1])


def negatives_unseen(batch: Mapping[str, Tensor]) -> Tensor:
    """Return bool [B, M]: negatives whose kept triples are the caption's, so that E_KE cannot differ.

    So it is where the exchange changed only triples beyond the K kept, tokens beyond the T kept of a phrase, or
    none at all: under 2 % of the negatives of alt-text (`sclip benchmark artefacts`). `batch` holds has_negative
    [B, M], triples [B, K, 3, T] and negative_triples [B, M, K, 3, T].
    """
    triples, others = batch["triples"].flatten(2), batch["negative_triples"].flatten(3)
    # How often each of the caption's triples stands on either side: their order changes nothing.
    own = (triples[:, :, None] == triples[:, None]).all(-1).sum(-1)
    found = (triples[:, None, :, None] == others[:, :, None]).all(-1).sum(-1)
    return (own[:, None] == found).all(2) & batch["has_negative"]


class KnowledgeEncoder(nn.Module):
    """Transformer over the embeddings of a caption's triples, masked mean pool, projection."""

    def __init__(self, table: nn.Embedding, features: int, config: KEEConfig) -> None:
        """Build `config.layers` pre-norm layers of the word table's width, projected to CLIP's feature width.

        `table` is the text tower's; it is copied with `config.own_embeddings` and else left to the caller.
        """
        super().__init__()
        self.form, self.heads = config.form, config.heads
        width = table.embedding_dim
        # Word tables are initialised near 0.02; without this norm the first residual sum would drown them.
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
        """Return E_KE [N, D], of no particular length, and bool [N], whether the caption has a triple.

        `triples` are the token ids [N, K, 3, T] of (head, relation, tail), -1 where there is none; or, packed
        (`sclip.model.packing`), those of several captions in rows [S, P, 3, T], with `owner` [S, P] and `slot` [N, K].
        `table` [V, W] is the word table, where the encoder has none of its own. A triple without any token is masked;
        a caption without triples gives a finite vector that means nothing and must not be used.
        """
        # Looked up in here and not by the caller: FSDP2 gathers the own table when this module is called.
        if self.token_embedding is not None:
            table = self.token_embedding.weight
        assert table is not None, "pass a word table: this encoder has none"
        hidden = self.ln_pre(self._embed(phrase_means(triples, table)))
        if owner is None or slot is None:
            kept = (triples != PADDING).flatten(2).any(-1)
            # A softmax over no key at all is NaN, also backward: rows without triples attend to their first slot.
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
        """Return the embeddings [B, K, W] of triples from those of their phrases [B, K, 3, W]."""
        if self.join is not None:
            embedded: Tensor = self.join(phrases.flatten(-2))
            return embedded
        head, relation, tail = phrases.unbind(2)
        return head + relation + tail if self.form == "sum" else head + relation - tail
