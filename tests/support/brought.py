"""Rows of the table `what people bring` in sclip/data/README.md, each with the files that it describes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from support.paths import ROOT
from support.pictures import encoded, noise, picture
from support.tars import Member, tar_bytes

TOLD = "closing table, `sclip validate`"
AT_THE_START = "error at the start"
Files = dict[str, bytes | str]


@dataclass(frozen=True)
class Row:
    files: Files
    samples: int = 0
    """Number of samples trained on in one pass."""
    says: str = ""
    """Regular expression found in the closing table, or in the refusal where nothing is trained on."""
    set_aside: str = ""
    images: int | None = None
    """Number of different images; None means as many as samples."""
    shards: str = "*.tar"
    overrides: tuple[str, ...] = ()
    columns: list[str] = field(default_factory=list)
    """The README's columns: what people bring, what sclip does with it, and where sclip reports it."""

    @property
    def brought(self) -> str:
        return self.columns[0]

    @property
    def becomes(self) -> str:
        return self.columns[1]

    @property
    def told(self) -> str:
        return self.columns[2]

    @property
    def is_refused(self) -> bool:
        return self.told == AT_THE_START

    def make(self) -> Files:
        return self.files


def image(number: int, format: str = "JPEG") -> bytes:
    return encoded(noise(16, 16, number), format)


def pairs(
    count: int, first: int = 0, name: str = "{:06d}", suffixes: tuple[str, str] = ("jpg", "txt")
) -> list[Member]:
    members: list[Member] = []
    for number in range(first, first + count):
        members.append((f"{name.format(number)}.{suffixes[0]}", image(number)))
        members.append((f"{name.format(number)}.{suffixes[1]}", f"a dog and {number + 2} cats".encode()))
    return members


def good(count: int, **files: bytes | str) -> Files:
    """Return `count` tars of four samples each, and further files: keyword `_9` stands for 9.tar."""
    tars: Files = {f"{shard}.tar": tar_bytes(pairs(4, 4 * shard)) for shard in range(count)}
    return tars | {f"{name[1:]}.tar": content for name, content in files.items()}


def one(*samples: Iterable[Member]) -> Files:
    return {"0.tar": tar_bytes(chain(*samples))}


def sample(number: int, image: bytes, caption: str = "a dog", suffix: str = "jpg") -> list[Member]:
    return [(f"{number}.{suffix}", image), (f"{number}.txt", caption.encode())]


def captioned(*captions: str) -> Files:
    return one(*(sample(number, image(number), text) for number, text in enumerate(captions)))


def linked(*members: Member, **links: str) -> bytes:
    buffer = io.BytesIO(tar_bytes(members))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for suffix, target in links.items():
            info = tarfile.TarInfo(f"x.{suffix}")
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def index(*samples: int) -> str:
    return json.dumps({"shards": [{"name": f"{i}.tar", "samples": n} for i, n in enumerate(samples)]})


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1234\n"
PAGE = "<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"
CLIP = tar_bytes(pairs(30, name="clip7.{:05d}"))
PHOTO = [*pairs(1, name="photo"), ("photo.large.jpg", image(5)), ("photo.seg.png", picture())]
OUTPUTS = tar_bytes(pairs(3, suffixes=("input.jpg", "outputs.txt")))
FORMATS = {"jfif": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
HELD_IN = [parquet(image=[{"bytes": image(number), "path": "x"} for number in rows], text=["a dog"] * 4)
           for rows in (range(4), range(4, 8))]  # fmt: skip
DOWNLOADED = parquet(
    jpg=[image(0), None, image(2)], caption=["a dog"] * 3, status=["success", "failed_to_download", "success"]
)

_ROWS: dict[str, Row] = {
    "tars that each hold `image.jpg`": Row({f"{n}.tar": tar_bytes(pairs(1, n, "image")) for n in range(8)}, 8),
    "copies of an image": Row(one(*(sample(number, image(7)) for number in range(3))), 3, images=1),
    "Git LFS pointers": Row(good(1, _p=POINTER, _h=PAGE, _z=b"PK\x03\x04" + bytes(99), _e=b""),
        says="4 of 5 shards cannot be read: .*Git LFS pointer.*git lfs pull.*max_unreadable_shards=4"),
    "the same, allowed": Row(good(2, _p=POINTER), 8, "1 of 3 shards cannot be read: 1 x a Git LFS pointer",
        overrides=("data.max_unreadable_shards=1",)),
    "tars in gzip": Row({"0.tar": zstd(tar_bytes(pairs(4))), "1.tar.zst": zstd(tar_bytes(pairs(4, 4))),
        "2.tgz": gzip.compress(tar_bytes(pairs(4, 8)))}, 12, shards="*"),
    "a tar that breaks off": Row(good(2, _9=tar_bytes(pairs(2, 20))[:2700]), 9, r"cut short +1 shards", "broken tar"),
    "a tar that was made long": Row(good(2, _9=tar_bytes(pairs(2)) + bytes(100_000)), 10, "bytes are zeros",
        "bytes are zeros", images=8),
    "a file of zeros": Row(good(1, _9=bytes(100_000)), says="zeros instead of a tar"),
    "`_stats.json` of img2dataset": Row(good(2) | {"0_stats.json": '{"successes": 160}'}, 8,
        "0_stats.json records 160 samples, .* holds 4"),
    "an `index.json` that promises": Row(good(1) | {"index.json": index(60)},
        says="56 of 60 recorded samples are missing"),
    "`/x/*` over tars": Row(good(2) | {"0.parquet": b"PAR1", "0_stats.json": '{"successes": 4}'}, 8, shards=""),
    "Parquet as Hugging Face": Row({f"{shard}.parquet": held for shard, held in enumerate(HELD_IN)}, 8,
        shards="*.parquet"),
    "Parquet as img2dataset writes it": Row({"0.parquet": DOWNLOADED, "0_stats.json": '{"count": 3, "successes": 2}'},
        2, set_aside="row without jpg; its status is failed_to_download", shards="*.parquet"),
    "Parquet without images": Row(good(1) | {"0.parquet": parquet(url=["x"], caption=["a dog"])},
        says="a Parquet file without an image column .columns: url, caption.*data.image_field=COLUMN",
        shards="*.parquet"),
    "`a.tar::b.tar`": Row(good(2), says="'::' does not join sources; list them", shards="0.tar::{folder}/1.tar"),
    "folders with `[brackets]`": Row({f"[2014]/{name}": content for name, content in good(2).items()}, 8,
        shards="[2014]//*.tar"),
    "a name with nothing behind it": Row({f"deep/{name}": content for name, content in good(2).items()},
        says=r"name tars in its subfolders as .*/\*\*/\*\.tar", shards=""),
    "`clip7.00000.jpg`": Row(good(1, _9=CLIP), 4, r"not read +60 images or texts",
        "data.key_ends_at=last_dot would make 30 samples of it"),
    "the same with that key": Row({"9.tar": CLIP}, 30, overrides=("data.key_ends_at=last_dot",)),
    "`photo.large.jpg` or a mask": Row(one(PHOTO), 1,
        r"not read +2 images or texts with other suffixes: \.large\.jpg \(1\), \.seg\.png \(1\)"),
    "`x.input.jpg`": Row(good(1, _9=OUTPUTS), 4, r"not read +6",
        "no image: it has .input.jpg .outputs.txt; data.image_suffixes"),
    "the same with `data.image_suffixes": Row({"9.tar": OUTPUTS}, 3, overrides=("data.image_suffixes=[input.jpg]",
        "data.text_suffixes=[outputs.txt]")),
    ".jfif, .gif of one frame": Row(one(*(sample(number, image(number, FORMATS[suffix]), suffix=suffix) for number,
        suffix in enumerate(FORMATS))), 4),
    "`._x.jpg` and `__MACOSX/`": Row(one([("a/._0.jpg", b"-"), ("__MACOSX/a/x.jpg", b"-")], pairs(2, name="a/{}")),
        2),
    "a tar made without `--sort=name`": Row(good(1, _9=tar_bytes(sorted(pairs(4, 9),
        key=lambda member: member[0][-3:]))), 4, set_aside="tar --sort=name"),
    "entities, tags, byte order marks": Row(captioned("a man &amp; a woman", "a <b>red</b> dog", "\ufeffa cat",
        "a\0 bird", "a zero\u200b width"), 5, r"cleaned +5 captions"),
    "a .txt of several lines": Row(captioned("a dog\r\n\na cat\n"), 1),
    "a caption of blanks": Row(captioned("a dog", "&nbsp;\u200b"), 1, set_aside="no caption in"),
    "fewer tars than": Row(good(2) | {"index.json": index(4, 4, 1)}, 8, r"absent +recorded but missing: 1 shards",
        overrides=("data.max_quarantined=0.2",)),
    "hard or symbolic links": Row(good(1, _9=linked(*pairs(1, 20), jpg="000020.jpg", txt="000020.txt")), 5,
        set_aside="tar --dereference --hard-dereference"),
    "members named as by `tar -P`": Row(one(pairs(1, 0, "/data/{}"), pairs(1, 1, ".//{}"), pairs(1, 2, "a\\{}")), 3),
    "tars joined with `cat`": Row(good(1, _9=tar_bytes(pairs(2, 20)) + tar_bytes(pairs(2, 30))), 6,
        r"cut short +1 shards", "tar --concatenate"),
    "a `.json` of something else": Row(one(pairs(1), [("000000.json", b"[1, 2]")]), 1, "beside an unusable .json"),
    "captions `nan`": Row(captioned("a dog", "nan"), 1, set_aside="no caption in"),
}  # fmt: skip
"""Maps the beginning of each README row to its files and results, in the README's order."""


def _readme_rows() -> tuple[Row, ...]:
    text = (ROOT / "sclip/data/README.md").read_text()
    table = text[text.index("| what people bring |") :].partition("\n\n")[0].splitlines()[2:]
    for line, (begins, row) in zip(table, _ROWS.items(), strict=True):
        assert line.startswith(f"| {begins}"), (line, begins)
        row.columns[:] = line.removeprefix("| ").removesuffix(" |").rsplit(" | ", 2)
    return tuple(_ROWS.values())


ROWS = _readme_rows()
