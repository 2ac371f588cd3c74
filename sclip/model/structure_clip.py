"""Structure-CLIP: open_clip's towers, with the knowledge-enhanced encoder (KEE) beside the text tower.

Source: Huang et al., "Structure-CLIP: Towards Scene Graph Knowledge to Enhance Multi-modal Structured Representations",
AAAI 2024 (arXiv 2305.06152).

A batch of uint8 images, token ids and triple ids goes in; unit-length features come out. The model converts to floats
on the device, so that the batch copied to the device stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sclip.config import ModelConfig
from sclip.model.architecture import open_clip_config
from sclip.model.attention import mask_heads
from sclip.model.kee import KnowledgeEncoder
from sclip.model.packing import FURTHER, attention_mask
from sclip.model.tokenizer import PADDING
from sclip.model.towers import is_hub_tower, never_empty, text_tower, unpackable, word_table

__all__ = ["CLIP_PREFIX", "PARTS", "LogitScale", "Part", "StructureCLIP", "part_of"]

CLIP_PREFIX = "clip."
"""Prefix of open_clip's own names in the state dict of `StructureCLIP`."""


class LogitScale(nn.Module):
    """Learned inverse temperature, as its logarithm. It is a separate module so that FSDP2 can keep it in fp32."""

    def __init__(self, log: Tensor) -> None:
        super().__init__()
        # bf16 values near ln(100) lie 0.03 apart, which is 3 % of the temperature.
        self.log = nn.Parameter(log.detach().clone().float().reshape(1))  # `fully_shard` rejects scalars

    def forward(self) -> Tensor:
        """Return the scale itself, a scalar."""
        return self.log.float().exp().sum()  # not a view: FSDP2 attaches backward hooks to outputs


class LogitBias(nn.Module):
    """Learned bias of SigLIP's logits, in fp32 as `LogitScale`."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone().float().reshape(1))

    def forward(self) -> Tensor:
        """Return the bias, a scalar."""
        return self.value.float().sum()


class StructureCLIP(nn.Module):
    """CLIP whose text feature is unit(unit(E_CLIP) + lambda * unit(E_KE)), or unit(E_CLIP) without triples."""

    image_mean: Tensor
    image_inverse_std: Tensor

    def __init__(self, clip: Any, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.clip = clip
        self.logit_scale = LogitScale(clip.logit_scale)
        clip.logit_scale = None
        self.logit_bias: LogitBias | None = None
        if clip.logit_bias is not None or config.logit_bias:
            start = torch.tensor(config.logit_bias) if clip.logit_bias is None else clip.logit_bias
            self.logit_bias = LogitBias(start)
        clip.logit_bias = None
        preprocess = clip.visual.preprocess_cfg
        mean, std = torch.tensor(preprocess["mean"]), torch.tensor(preprocess["std"])
        self.register_buffer("image_mean", (255 * mean).reshape(3, 1, 1))
        self.register_buffer("image_inverse_std", (1 / (255 * std)).reshape(3, 1, 1))
        self.unpackable = unpackable(self.text_tower)  # the reason, or ""
        self.kee: KnowledgeEncoder | None = None
        if config.kee.enabled:
            features = open_clip_config(config.name)["embed_dim"]
            self.kee = KnowledgeEncoder(self.token_embedding, features, config.kee)

    @property
    def packs_text(self) -> bool:
        """Whether `forward` takes packed captions."""
        return not self.unpackable

    def train(self, mode: bool = True) -> StructureCLIP:
        """Set the mode of all modules except BatchNorm and Hugging Face towers, which stay in eval mode.

        BatchNorm keeps the statistics of the starting weights: batch statistics would include padding rows and differ
        between ranks. Hugging Face towers use no dropout and drop no layers: dropped layers would differ between ranks.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) or is_hub_tower(module):
                module.eval()
        return self

    @property
    def text_tower(self) -> Any:
        """The open_clip module that holds the word table and the text Transformer: the CLIP itself or its `text`."""
        return text_tower(self.clip)

    @property
    def token_embedding(self) -> nn.Embedding:
        """Word table of the text tower. The KEE shares it unless it has its own: a copy would double a small model."""
        return word_table(self.text_tower)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return image_features and text_features [B, D], logit_scale, any logit_bias, and features of `FURTHER` texts.

        Features are fp32 and of unit length. For M negatives per row, for example, negative_features is [B, M, D].

        `batch` holds image uint8 [B, 3, H, W], text [B, L] and, with the KEE, triples [B, K, 3, T]. `FURTHER` texts are
        optional: negative_text [B, M, L], negative_triples [B, M, K, 3, T], .. Texts may be packed by
        `sclip.model.packing.pack`. In training, negatives get the KEE's feature only if `model.kee.on_negatives`.
        """
        image_features = self._images(batch["image"])
        ending = "end" if "packed_text" in batch else "text"
        further = [name for name in FURTHER if f"{name}_{ending}" in batch]

        def joined(key: str, ending: str) -> Tensor:
            texts = [batch[f"{name}_{ending}"].flatten(0, 1) for name in further]
            return torch.cat([batch[key], *texts]) if texts else batch[key]

        knowledge = None
        if "packed_text" in batch:
            caption = self._packed_captions(batch, joined("text_end", "end"))
            if self.kee is not None and "packed_triples" in batch:
                slot = joined("triple_slot", "slot")
                knowledge = self.kee(batch["packed_triples"], self._kee_table, batch["packed_owner"], slot)
        else:
            caption = self._captions(joined("text", "text"))
            if self.kee is not None and "triples" in batch:
                triples = joined("triples", "triples")
                if self.training and not self.config.kee.on_negatives and "negative" in further:
                    rows = len(image_features)
                    triples[rows : rows + batch["negative_text"].shape[:2].numel()] = PADDING
                knowledge = self.kee(triples, self._kee_table)
        text_features = self._fused(caption, knowledge)
        features = {"image_features": image_features, "logit_scale": self.logit_scale()}
        if self.logit_bias is not None:
            features["logit_bias"] = self.logit_bias()
        if further:
            # Clones, not views: FSDP2 attaches backward hooks to outputs.
            rows, width = len(image_features), text_features.shape[1]
            counts = [batch[f"{name}_{ending}"].shape[:2].numel() for name in further]
            text_features, *further_features = torch.split(text_features, [rows, *counts])
            for name, rows_of_name in zip(further, further_features, strict=True):
                features[f"{name}_features"] = rows_of_name.view(rows, -1, width).clone()
            text_features = text_features.clone()
        features["text_features"] = text_features
        return features

    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit features, fp32 [B, D], of uint8 images [B, 3, H, W] in RGB."""
        return self._images(image)

    def _images(self, image: Tensor) -> Tensor:
        # `forward` calls this method, because FSDP2 takes the end of encode_image for the end of a forward pass.
        if image.dtype != torch.uint8:
            raise TypeError(f"image is {image.dtype}: pass uint8 0..255; the model normalises them itself")
        normalised = (image.float() - self.image_mean.float()) * self.image_inverse_std.float()
        return F.normalize(self.clip.encode_image(normalised, normalize=False).float(), dim=-1)

    def encode_text(self, text: Tensor, triples: Tensor | None = None) -> Tensor:
        """Return unit features, fp32 [B, D], of token ids [B, L] and triple ids [B, K, 3, T] (-1: padding).

        If `triples` is None, or a row has no triple, the feature is exactly CLIP's. If `packs_text`, L may be smaller
        than the context length as long as only padding is cut.
        """
        knowledge = None if self.kee is None or triples is None else self.kee(triples, self._kee_table)
        return self._fused(self._captions(text), knowledge)

    def _captions(self, text: Tensor) -> Tensor:
        if is_hub_tower(self.text_tower):
            text = never_empty(text)
        elif self.text_tower is self.clip and text.shape[1] < len(self.clip.positional_embedding):
            return F.normalize(self._shorter(text).float(), dim=-1)
        return F.normalize(self.clip.encode_text(text, normalize=False).float(), dim=-1)

    def _shorter(self, text: Tensor) -> Tensor:
        """Return what open_clip's `CLIP.encode_text` would, for texts shorter than the context, which it rejects."""
        tower, places = self.clip, text.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        hidden = tower.token_embedding(text).to(dtype) + tower.positional_embedding[:places].to(dtype)
        hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:places, :places]))
        end = text_global_pool(
            hidden, text, tower.text_pool_type, eos_token_id=getattr(tower, "text_eos_id", None)
        )
        return self._projected(end)

    def _projected(self, end: Tensor) -> Tensor:
        projection = self.text_tower.text_projection
        if projection is None:
            return end
        return cast(Tensor, projection(end) if isinstance(projection, nn.Linear) else end @ projection)

    def _packed_captions(self, batch: Mapping[str, Tensor], end: Tensor) -> Tensor:
        """Return E_CLIP [N, D] of packed captions that end at `end` [N]; zeros where `end` is -1."""
        # As open_clip's `encode_text`, but with another mask and with positions from the batch.
        text = self.text_tower
        dtype = text.transformer.get_cast_dtype()
        tokens = text.token_embedding(batch["packed_text"]).to(dtype)
        hidden = tokens + F.embedding(batch["packed_position"], text.positional_embedding.to(dtype))
        heads = mask_heads(text.transformer.resblocks[0].attn)
        mask = attention_mask(batch["packed_caption"], heads, hidden.dtype, causal=True)
        hidden = text.transformer(hidden, attn_mask=mask)
        last = self._projected(text.ln_final(hidden.flatten(0, 1)[end.clamp(min=0)]))
        return F.normalize(torch.where(end[:, None] >= 0, last.float(), 0.0), dim=-1)

    @property
    def _kee_table(self) -> Tensor | None:
        return None if self.config.kee.own_embeddings else self.token_embedding.weight

    def _fused(self, caption: Tensor, knowledge: tuple[Tensor, Tensor] | None) -> Tensor:
        if knowledge is None:
            return caption
        feature, has_triples = knowledge
        fused = F.normalize(caption + self.config.kee.weight * F.normalize(feature.float(), dim=-1), dim=-1)
        return torch.where(has_triples[:, None], fused, caption)


Part = Literal["image", "text", "kee"]

PARTS: dict[Part, str] = {"image": f"{CLIP_PREFIX}visual.", "text": CLIP_PREFIX, "kee": "kee."}
"""Prefix of each part's parameter names. The first match counts: "text" is CLIP without "image"."""


def part_of(name: str) -> Part | None:
    """Return the part that holds a parameter; None for logit scale and bias."""
    plain = name.removeprefix("module.")  # DDP's
    return next((part for part, prefix in PARTS.items() if plain.startswith(prefix)), None)
