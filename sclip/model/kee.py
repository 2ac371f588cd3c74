"""The knowledge-enhanced encoder: the triples of a caption to one vector (method, section 3; paper, 3.3).

Embedded phrase tokens go in, the knowledge feature E_KE and "this caption has triples" come out. The triples
are a set: there is no position embedding, so their order and the masked ones between them change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sclip.config import KEEConfig

__all__ = ["KnowledgeEncoder", "phrase_means"]


def phrase_means(words: Tensor, present: Tensor) -> Tensor:
    """Return the mean [..., W] over the tokens of each phrase; an empty phrase gives zeros.

    `words` [..., T, W] are embedded tokens, `present` bool [..., T] marks those that are no padding.
    """
    weights = present.to(words.dtype).unsqueeze(-1)
    return (words * weights).sum(-2) / weights.sum(-2).clamp(min=1.0)


class KnowledgeEncoder(nn.Module):
    """Transformer over a caption's triple embeddings e = h + r - t, masked mean pool, projection."""

    def __init__(self, width: int, features: int, config: KEEConfig) -> None:
        """Build `config.layers` pre-norm layers of the word table's width, projected to CLIP's feature width."""
        super().__init__()
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

    def forward(self, words: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_KE [B, D], of no particular length, and bool [B], whether the caption has a triple.

        `words` [B, K, 3, T, W] are the embedded tokens of (head, relation, tail), `present` bool [B, K, 3, T]
        marks real tokens. A triple without any token is masked; a row without triples gives a finite vector
        that means nothing and must not be used.
        """
        head, relation, tail = phrase_means(words, present).unbind(2)
        kept = present.flatten(2).any(-1)
        has_triples = kept.any(-1)
        # A softmax over no key at all is NaN, also backward: rows without triples attend to their first slot.
        attended = torch.cat([kept[:, :1] | ~has_triples[:, None], kept[:, 1:]], dim=1)
        hidden = self.ln_pre(head + relation - tail)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=~attended)
        weights = kept.to(hidden.dtype).unsqueeze(-1)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.projection(self.ln_post(pooled)), has_triples
