"""Settings of the CLIP towers, the knowledge encoder and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from sclip.config.checks import POSITIVE, SHARE, Limit, Section, at_least, between

_BIAS = Limit("0 (no bias) or below, as most pairs do not match", lambda bias: bias <= 0)
_MARGIN = between(0, 2, "0 to 2, a difference of cosines")
_CONTEXT = Limit("0 (the architecture's own) or at least 3 (start, word, end)", lambda n: n == 0 or n >= 3)


@dataclass(frozen=True)
class KEEConfig(Section, key="model.kee"):
    """The knowledge-enhanced encoder (method, 3)."""

    enabled: bool = True
    """Add the knowledge feature to the text feature; off: CLIP's text feature alone."""
    weight: Annotated[float, at_least(0)] = 0.2
    """Lambda: weight of the knowledge feature. Up to 1, cos(sum, CLIP's feature) >= sqrt(1 - lambda^2)."""
    form: Literal["transe", "sum", "concatenation"] = "transe"
    """Embedding of a triple: h + r - t, h + r + t (the same if head and tail are exchanged) or W [h; r; t]."""
    on_negatives: bool = True
    """Add the knowledge feature to training negatives too; off: only CLIP's feature, as in the released code."""
    own_embeddings: bool = False
    """Embed phrases with a separate copy of the text tower's word table; off: share the text tower's table."""
    layers: Annotated[int, at_least(1)] = 6
    """Transformer layers over the triples."""
    heads: Annotated[int, at_least(1)] = 8
    """Attention heads of each layer; must divide the text tower's width."""
    triples: Annotated[int, at_least(1)] = 6
    """K: maximum triples kept of a caption."""
    phrase_tokens: Annotated[int, at_least(1)] = 5
    """Maximum tokens kept of a head, relation or tail."""


@dataclass(frozen=True)
class LoRAConfig(Section, key="model.lora"):
    """Low-rank updates, trained with encoder and logit scale while the tower weights stay fixed (method, 11)."""

    rank: Annotated[int, at_least(0, "0 (off) or more")] = 0
    """Rank of the updates to the towers' attention and MLP projections; 0: no updates, all weights are trained."""
    alpha: Annotated[float, POSITIVE] = 16.0
    """Updates are scaled by alpha / rank."""


@dataclass(frozen=True)
class ModelConfig(Section, key="model"):
    """The CLIP towers and the knowledge encoder."""

    name: str = "ViT-B-32"
    """Name of an open_clip architecture, or of one in sclip/model/configs (`scenes-conv`, `scenes-attention`,
    `scenes-vit`)."""
    pretrained: str = ""
    """open_clip tag (`openai`), or a file or folder of weights (open_clip's, ours). Empty: random weights."""
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    """Use QuickGELU. auto: as the tag or file of weights says; if a file does not say, set on or off."""
    hub_folder: str = ""
    """Folder, on every node, with the hub files of SigLIP's and Hugging Face's text towers: tokenizer files and
    config.json, below the hub name (`FOLDER/roberta-base/`). Empty: the hub or its cache."""
    logit_bias: Annotated[float, _BIAS] = 0.0
    """Starting value of the learned logit bias that `loss.contrastive=sigmoid` needs (SigLIP: -10). 0: no bias."""
    context_length: Annotated[int, _CONTEXT] = 0
    """Tokens of a caption that the text tower reads. If the weights have fewer positions, these are stretched, as in
    Long-CLIP to 248; if they have more, the first ones are kept. 0: the architecture's own number, mostly 77."""
    attention: Literal["lean", "plain"] = "lean"
    """lean: attention of open_clip's blocks and of the KEE makes fewer copies; plain: torch's own module computes it.
    Equal up to rounding."""
    kee: KEEConfig = field(default_factory=KEEConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)


@dataclass(frozen=True)
class MixtureConfig(Section, key="loss.mixture"):
    """Shares in which the kinds of semantic negatives are drawn; a share of 0 excludes a kind.

    If a caption has no negative of a kind, the other kinds are drawn by their shares.
    """

    exchange: Annotated[float, at_least(0)] = 0.25
    """Parts of the caption change places; the paper uses this kind alone."""
    replace_object: Annotated[float, at_least(0)] = 0.25
    """An object is replaced by another: "a dog" becomes "a cat"."""
    replace_attribute: Annotated[float, at_least(0)] = 0.25
    """A color, number or material, or one of two opposites, is replaced by another."""
    replace_relation: Annotated[float, at_least(0)] = 0.25
    """A preposition or verb is replaced by another: "above" becomes "below"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(any(vars(self).values()), "exchange", "one share of loss.mixture must be above 0")

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares by kind."""
        return vars(self)


@dataclass(frozen=True)
class LossConfig(Section, key="loss"):
    """Terms of the loss (method, 4)."""

    contrastive: Literal["infonce", "max_margin", "sigmoid"] = "infonce"
    """Loss. infonce: CLIP's; max_margin: hinge on the batch's hardest candidate (released code); sigmoid: SigLIP's."""
    contrastive_margin: Annotated[float, _MARGIN] = 0.2
    """For contrastive=max_margin: margin between s(I, w) and the hardest candidate of the batch."""
    contrastive_warmup: Annotated[float, SHARE] = 0.0125
    """For max_margin: until this share of the run's samples is trained on, captions compete with the mean candidate."""
    negatives_as_texts: bool = False
    """For infonce: images choose among the batch's negatives too (NegCLIP); hinge_weight=0 leaves out the hinge."""
    negatives: Literal["semantic", "shuffle", "foreign", "none"] = "semantic"
    """Negatives for the hinge. semantic: changes of the meaning; shuffle: NegCLIP's random word swaps; foreign: only
    those of data.negatives_field; none: no negatives. With semantic and shuffle, the negatives of data.negatives_field
    come first in a share of the draws (data.foreign_share)."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    negatives_per_caption: Annotated[int, at_least(1, "at least 1 (or loss.negatives=none)")] = 1
    """M: maximum different negatives of a caption in one step; each has the same weight in the hinge's mean."""
    hinge_weight: Annotated[float, at_least(0)] = 1.0
    """Alpha: weight of the hinge term."""
    hinge_margin: Annotated[float, _MARGIN] = 0.2
    """Gamma: margin between s(I, w) and s(I, w-)."""
    units: Annotated[float, at_least(0)] = 0.0
    """Weight of a hinge (margin: hinge_margin) between a caption's part ("a brown dog") and its foil; 0: off."""
    positives: Annotated[float, at_least(0)] = 0.0
    """Weight of the hinges that keep another wording's score near the caption's and above the negatives'; 0: off."""
    positive_margin: Annotated[float, _MARGIN] = 0.02
    """How far s(I, wording) may be below s(I, w). The default is a tenth of hinge_margin."""
    distil: Annotated[float, at_least(0)] = 0.0
    """Mu: weight of the KL divergence between the similarities of the frozen start and those of the model; 0: off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives_as_texts:
            self.require(
                self.contrastive == "infonce",
                "negatives_as_texts",
                f"needs loss.contrastive=infonce, not {self.contrastive}",
            )
            self.require(
                self.negatives != "none",
                "negatives_as_texts",
                "needs negatives; set loss.negatives to semantic or shuffle, not none",
            )
