"""The towers, the encoder beside them, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from sclip.config.checks import POSITIVE, SHARE, Limit, Section, at_least, between

_BIAS = Limit("0 (none) or below: most pairs differ", lambda bias: bias <= 0)
_MARGIN = between(0, 2, "0 to 2, a cosine")
_CONTEXT = Limit(
    "0 (the architecture's own), or 3 and more: a start, an end and a word", lambda n: n == 0 or n >= 3
)


@dataclass(frozen=True)
class KEEConfig(Section, key="model.kee"):
    """The knowledge-enhanced encoder (method, 3)."""

    enabled: bool = True
    """Off: the text feature is CLIP's alone."""
    weight: Annotated[float, at_least(0)] = 0.2
    """Lambda: weight of the knowledge feature; to 1, the sum stays within cosine sqrt(1 - lambda^2) of CLIP's."""
    form: Literal["transe", "sum", "concatenation"] = "transe"
    """A triple's embedding: h + r - t, h + r + t (blind to an exchange of head and tail) or W [h; r; t]."""
    on_negatives: bool = True
    """Off: the negatives that are trained on have CLIP's feature alone, as in the released code."""
    own_embeddings: bool = False
    """Embed phrases with a word table of its own, which starts as the text tower's. Off: they share one."""
    layers: Annotated[int, at_least(1)] = 6
    """Transformer layers over the triples."""
    heads: Annotated[int, at_least(1)] = 8
    """Attention heads of each layer; must divide the text tower's width."""
    triples: Annotated[int, at_least(1)] = 6
    """K: triples of a caption that are kept."""
    phrase_tokens: Annotated[int, at_least(1)] = 5
    """Tokens of a head, relation or tail that are kept."""


@dataclass(frozen=True)
class LoRAConfig(Section, key="model.lora"):
    """Low-rank updates of the towers in place of their weights, which stay as they start (method, 11)."""

    rank: Annotated[int, at_least(0, "0 (off) or more")] = 0
    """Train updates of this rank of the towers' attention and MLP projections, with encoder and logit scale. 0: all."""
    alpha: Annotated[float, POSITIVE] = 16.0
    """Updates count alpha / rank times."""


@dataclass(frozen=True)
class ModelConfig(Section, key="model"):
    """The CLIP towers and the encoder beside them."""

    name: str = "ViT-B-32"
    """open_clip architecture, or one of sclip/model/configs (`scenes-conv`, `scenes-attention`)."""
    pretrained: str = ""
    """open_clip tag (`openai`), or a file or folder of weights (open_clip's, ours). Empty: random weights."""
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    """QuickGELU as the weights were trained; auto: as tag or file say, and if a file does not, one has to be set."""
    hub_folder: str = ""
    """Folder that holds by its hub name what SigLIP's and Hugging Face's text towers take from the hub: tokenizer
    files and config.json (`FOLDER/roberta-base/`), on every node. Empty: the hub or its cache."""
    logit_bias: Annotated[float, _BIAS] = 0.0
    """Start of the learned logit bias that `loss.contrastive=sigmoid` needs; SigLIP's is -10. 0: none."""
    context_length: Annotated[int, _CONTEXT] = 0
    """Tokens of a caption that the text tower reads. Positions of weights that have fewer are stretched, as Long-CLIP
    does to 248, of those that have more cut. 0: as the architecture has them, mostly 77."""
    kee: KEEConfig = field(default_factory=KEEConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)


@dataclass(frozen=True)
class MixtureConfig(Section, key="loss.mixture"):
    """How often a visit draws each kind of semantic negative: shares of their sum. 0: never.

    Where a caption has none of a kind, the others are drawn by their shares.
    """

    exchange: Annotated[float, at_least(0)] = 0.25
    """Parts of the caption change places: alone, the paper's negatives."""
    replace_object: Annotated[float, at_least(0)] = 0.25
    """A thing gives its place to another: "a cat" for "a dog"."""
    replace_attribute: Annotated[float, at_least(0)] = 0.25
    """The same of a colour, number, material or opposite."""
    replace_relation: Annotated[float, at_least(0)] = 0.25
    """The same of a preposition or verb: "below" for "above"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(any(vars(self).values()), "exchange", "one of loss.mixture must be above 0")

    @property
    def shares(self) -> Mapping[str, float]:
        """The shares by kind."""
        return vars(self)


@dataclass(frozen=True)
class LossConfig(Section, key="loss"):
    """Terms of the loss (method, 4)."""

    contrastive: Literal["infonce", "max_margin", "sigmoid"] = "infonce"
    """infonce: CLIP's; max_margin: of the hardest in the batch, the released code's; sigmoid: SigLIP's."""
    contrastive_margin: Annotated[float, _MARGIN] = 0.2
    """max_margin: margin between s(I, w) and the hardest candidate of the batch."""
    contrastive_warmup: Annotated[float, SHARE] = 0.0125
    """max_margin: share of all samples over which captions meet the mean of the batch, not the hardest."""
    negatives_as_texts: bool = False
    """infonce: images choose among the negatives of the batch too (NegCLIP); hinge_weight=0 for that alone."""
    negatives: Literal["semantic", "shuffle", "foreign", "none"] = "semantic"
    """What the hinge trains on: semantic negatives, NegCLIP's random swap of words, or nothing. Before the first two
    come those of data.negatives_field (data.foreign_share); foreign: those alone."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    negatives_per_caption: Annotated[int, at_least(1, "at least 1 (or loss.negatives=none)")] = 1
    """Most negatives of a caption in one visit (M), each another; all count alike in the hinge's mean."""
    hinge_weight: Annotated[float, at_least(0)] = 1.0
    """Alpha: weight of the hinge term."""
    hinge_margin: Annotated[float, _MARGIN] = 0.2
    """Gamma: margin between s(I, w) and s(I, w-)."""
    units: Annotated[float, at_least(0)] = 0.0
    """Weight of the hinge, of the same margin, on a part of the caption ("a brown dog") and its foil; 0: off."""
    positives: Annotated[float, at_least(0)] = 0.0
    """Weight of the hinges that keep another wording of the caption near it and above the negatives; 0: off."""
    positive_margin: Annotated[float, _MARGIN] = 0.02
    """By how much s(I, wording) may stay below s(I, w): a tenth of what a false caption has to."""
    distil: Annotated[float, at_least(0)] = 0.0
    """Mu: weight of the KL from the similarity rows of the starting weights, kept frozen, to the model's; 0: off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives_as_texts:
            self.require(
                self.contrastive == "infonce",
                "negatives_as_texts",
                f"only loss.contrastive=infonce takes further texts, not {self.contrastive}",
            )
            self.require(
                self.negatives != "none",
                "negatives_as_texts",
                "there are no negatives with loss.negatives=none; set it to semantic or shuffle",
            )
