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
    """The knowledge-enhanced encoder."""

    enabled: bool = True
    """Add the knowledge feature to the text feature; false: CLIP's text feature alone."""
    weight: Annotated[float, at_least(0)] = 0.2
    """Lambda: weight of the knowledge feature, which is added to CLIP's text feature."""
    form: Literal["transe", "sum", "concatenation"] = "transe"
    """Embedding of a triple. transe: h + r - t; sum: h + r + t, which ignores the order; concatenation: W [h; r; t]."""
    on_negatives: bool = True
    """Add the knowledge feature to training negatives too; false: only CLIP's feature, as in the released code."""
    own_embeddings: bool = False
    """Embed phrases with a separate copy of the text tower's word table. false: share the table with the text tower."""
    layers: Annotated[int, at_least(1)] = 6
    """Transformer layers over the triples."""
    heads: Annotated[int, at_least(1)] = 8
    """Attention heads of each layer; must divide the text tower's width."""
    triples: Annotated[int, at_least(1)] = 6
    """K: maximum triples kept per caption."""
    phrase_tokens: Annotated[int, at_least(1)] = 5
    """T: maximum tokens kept per head, relation or tail."""


@dataclass(frozen=True)
class LoRAConfig(Section, key="model.lora"):
    """Low-rank updates (LoRA). The towers stay fixed; updates, knowledge encoder and logit scale are trained."""

    rank: Annotated[int, at_least(0, "0 (off) or more")] = 0
    """Rank of the updates to the towers' attention and MLP projections; 0: no updates, all weights are trained."""
    alpha: Annotated[float, POSITIVE] = 16.0
    """Scale of the updates: each is multiplied by alpha / rank."""


@dataclass(frozen=True)
class ModelConfig(Section, key="model"):
    """The CLIP towers and the knowledge encoder."""

    name: str = "ViT-B-32"
    """Name of an open_clip architecture, or of one of sclip's own: scenes-conv, scenes-attention or scenes-vit."""
    pretrained: str = ""
    """open_clip tag (`openai`), or a file or folder of weights (open_clip's or sclip's). Empty: random weights."""
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    """Use QuickGELU. auto: as the tag or weights file states. If a file states no activation, set on or off."""
    hub_folder: str = ""
    """Folder on every node that replaces the Hugging Face hub: FOLDER/roberta-base/ holds tokenizer files and
    config.json of the text tower roberta-base. Empty: these files come from the hub or its cache."""
    logit_bias: Annotated[float, _BIAS] = 0.0
    """Starting value of the learned logit bias that `loss.contrastive=sigmoid` needs (SigLIP: -10). 0: no bias."""
    context_length: Annotated[int, _CONTEXT] = 0
    """Caption tokens that the text tower reads. 0: the architecture's own number, mostly 77. Positions of pretrained
    weights are stretched to a larger number as in Long-CLIP (77 to 248), or cut to a smaller one."""
    attention: Literal["lean", "plain"] = "lean"
    """plain: torch's attention module. lean: in open_clip's blocks and the knowledge encoder, the same computation with
    fewer copies; only rounding differs."""
    kee: KEEConfig = field(default_factory=KEEConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)


@dataclass(frozen=True)
class MixtureConfig(Section, key="loss.mixture"):
    """Shares in which the kinds of semantic negatives are drawn, among the kinds that a caption allows."""

    exchange: Annotated[float, at_least(0)] = 0.25
    """Share of negatives in which parts of the caption change places. The paper uses only this kind."""
    replace_object: Annotated[float, at_least(0)] = 0.25
    """Share of negatives in which an object is replaced by another: "a dog" becomes "a cat"."""
    replace_attribute: Annotated[float, at_least(0)] = 0.25
    """Share of negatives in which a color, number or material is replaced by another, or a word by its opposite."""
    replace_relation: Annotated[float, at_least(0)] = 0.25
    """Share of negatives in which a preposition or verb is replaced by another: "above" becomes "below"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(any(vars(self).values()), "exchange", "one share of loss.mixture must be above 0")

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares by kind."""
        return vars(self)


@dataclass(frozen=True)
class LossConfig(Section, key="loss"):
    """Terms of the loss."""

    contrastive: Literal["infonce", "max_margin", "sigmoid"] = "infonce"
    """infonce: CLIP's; max_margin: hinge on each row's hardest candidate (Structure-CLIP's code); sigmoid: SigLIP's."""
    contrastive_margin: Annotated[float, _MARGIN] = 0.2
    """For max_margin: margin between the cosine of image and caption and that of the hardest candidate of the batch."""
    contrastive_warmup: Annotated[float, SHARE] = 0.0125
    """For max_margin: share of the run, at its start, in which captions are compared with the mean of all images."""
    negatives_as_texts: bool = False
    """For infonce: images choose among the batch's negatives too. NegCLIP does so, without a hinge (hinge_weight=0)."""
    negatives: Literal["semantic", "shuffle", "foreign", "none"] = "semantic"
    """Negatives for the hinge. semantic: captions with a changed meaning; shuffle: random word swaps (NegCLIP); none.
    foreign: only those of data.negatives_field. semantic and shuffle use those too, as data.foreign_share says."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    negatives_per_caption: Annotated[int, at_least(1, "at least 1 (or loss.negatives=none)")] = 1
    """M: maximum different negatives per caption and step."""
    hinge_weight: Annotated[float, at_least(0)] = 1.0
    """Alpha: weight of the hinge term."""
    hinge_margin: Annotated[float, _MARGIN] = 0.2
    """Gamma: margin between an image's cosine with its caption and its cosine with a negative."""
    units: Annotated[float, at_least(0)] = 0.0
    """Weight of a hinge (margin: hinge_margin) between a caption's part ("a brown dog") and a false part; 0: off."""
    positives: Annotated[float, at_least(0)] = 0.0
    """Weight of two hinges on another wording of the caption. The wording's cosine with the image should be near the
    caption's, and above the negatives'. 0: off."""
    positive_margin: Annotated[float, _MARGIN] = 0.02
    """How far an image's cosine with another wording may be below its cosine with the caption. The default is a tenth
    of hinge_margin."""
    distil: Annotated[float, at_least(0)] = 0.0
    """Mu: weight of KL(frozen starting weights || model), a divergence of image-text similarities; 0: off."""

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
