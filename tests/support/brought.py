"""What people bring: the rows of the table in the data room's README, each with the files that it speaks of."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass

from support.brought_files import captioned, good, image, linked, pairs, parquet, zstd
from support.pictures import picture
from support.tars import tar_bytes

TOLD = "closing table, `sclip validate`"
AT_THE_START = "error at the start"


@dataclass(frozen=True)
class Row:
    """One row of the table, and the check that it is true."""

    brought: str
    becomes: str
    told: str
    make: Callable[[], dict[str, bytes | str]]
    """Files by name."""
    samples: int = 0
    """That are trained on in a pass."""
    images: int | None = None
    """Different ones; as many as samples where it is None."""
    set_aside: str = ""
    """Part of the reason."""
    says: str = ""
    """Part of what the closing table says, or of the refusal where nothing is trained on."""
    shards: str = "*.tar"
    overrides: tuple[str, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether a run ends at its start."""
        return self.told == AT_THE_START


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1234\n"
PAGE = "<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"
FILLED_IN_PART = tar_bytes(pairs(2)) + bytes(100_000)

ROWS = (
    Row(
        "tars that each hold `image.jpg` and `image.txt`",
        "every sample is its own: its shard and its key are its identity",
        "`sclip inspect`",
        lambda: {f"{n}.tar": tar_bytes(pairs(1, n, "image")) for n in range(8)},
        samples=8,
    ),
    Row(
        "copies of an image under other names",
        "trained on, and no negatives of each other in a batch",
        "–",
        lambda: {
            "0.tar": tar_bytes(
                [m for at in range(3) for m in ((f"{at}.jpg", image(7)), (f"{at}.txt", b"a dog"))]
            )
        },
        samples=3,
        images=1,
    ),
    Row(
        "Git LFS pointers, error pages, zips, Parquet files, empty files named .tar",
        "refused with what they are and the remedy; left out where `data.max_unreadable_shards` allows so many",
        AT_THE_START,
        lambda: {
            **good(1),
            "p.tar": POINTER,
            "h.tar": PAGE,
            "z.tar": b"PK\x03\x04" + bytes(99),
            "e.tar": b"",
        },
        says="4 of 5 shards cannot be read: .*Git LFS pointer.*git lfs pull.*max_unreadable_shards=4",
    ),
    Row(
        "the same, allowed",
        "the other shards are trained on",
        TOLD,
        lambda: {**good(2), "p.tar": POINTER},
        samples=8,
        says="1 of 3 shards cannot be read: 1 x a Git LFS pointer",
        overrides=("data.max_unreadable_shards=1",),
    ),
    Row(
        "tars in gzip, bzip2, xz or zstd, whatever their names",
        "read",
        "–",
        lambda: {
            "0.tar": zstd(tar_bytes(pairs(4))),
            "1.tar.zst": zstd(tar_bytes(pairs(4, 4))),
            "2.tgz": gzip.compress(tar_bytes(pairs(4, 8))),
        },
        samples=12,
        shards="*",
    ),
    Row(
        "a tar that breaks off",
        "its whole samples are trained on",
        TOLD,
        lambda: {**good(2), "9.tar": tar_bytes(pairs(2, 20))[:2700]},
        samples=9,
        says="cut short +1 shards",
        set_aside="broken tar",
    ),
    Row(
        "a tar that was made long and filled in part",
        "its samples are trained on",
        TOLD,
        lambda: {**good(2), "9.tar": FILLED_IN_PART},
        samples=10,
        images=8,
        says="bytes are zeros",
        set_aside="bytes are zeros",
    ),
    Row(
        "a file of zeros",
        "refused",
        AT_THE_START,
        lambda: {**good(1), "9.tar": bytes(100_000)},
        says="zeros where a tar begins",
    ),
    Row(
        "`_stats.json` of img2dataset that says another number",
        "every shard is counted; schedule and learning rate follow what is there",
        TOLD,
        lambda: {**good(2), "0_stats.json": json.dumps({"successes": 160})},
        samples=8,
        says="0_stats.json says 160, there are 4",
    ),
    Row(
        "an `index.json` that promises more than there is",
        "what is missing counts against `data.max_quarantined`",
        AT_THE_START,
        lambda: {**good(1), "index.json": json.dumps({"shards": [{"name": "0.tar", "samples": 60}]})},
        says="56 of 60 samples that are recorded are missing",
    ),
    Row(
        "`/x/*` over tars with .parquet and .json beside them; `/x`, `/x/`",
        "the tars alone",
        "–",
        lambda: {**good(2), "0.parquet": b"PAR1", "0_stats.json": json.dumps({"successes": 4})},
        samples=8,
        shards="",
    ),
    Row(
        "Parquet as Hugging Face writes it, in `/x/*.parquet`",
        "read: a row is a sample, and its number is its key",
        "–",
        lambda: {
            f"{shard}.parquet": parquet(
                image=[{"bytes": image(4 * shard + at), "path": "x.jpg"} for at in range(4)],
                text=["a dog"] * 4,
            )
            for shard in range(2)
        },
        samples=8,
        shards="*.parquet",
    ),
    Row(
        "Parquet as img2dataset writes it, with the rows that it could not download",
        "those are set aside with its status; they count against `data.max_quarantined`",
        TOLD,
        lambda: {
            "0.parquet": parquet(
                jpg=[image(0), None, image(2)],
                caption=["a dog"] * 3,
                status=["success", "failed_to_download", "success"],
            ),
            "0_stats.json": json.dumps({"count": 3, "successes": 2}),
        },
        samples=2,
        shards="*.parquet",
        set_aside="row without jpg; its status is failed_to_download",
    ),
    Row(
        "Parquet without images, as img2dataset puts beside its tars, in `/x/*.parquet`",
        "refused with the columns that there are and the key",
        AT_THE_START,
        lambda: {**good(1), "0.parquet": parquet(url=["x"], caption=["a dog"])},
        says="a Parquet file without an image column among url, caption, .*data.image_field=COLUMN",
        shards="*.parquet",
    ),
    Row(
        "`a.tar::b.tar`, as open_clip joins sources",
        "refused with the list to write",
        AT_THE_START,
        lambda: good(2),
        says="'::' joins no sources; list them",
        shards="0.tar::{folder}/1.tar",
    ),
    Row(
        "folders with `[brackets]`, `//` in a path",
        "taken as they are",
        "–",
        lambda: {f"[2014]/{name}": content for name, content in good(2).items()},
        samples=8,
        shards="[2014]//*.tar",
    ),
    Row(
        "a name with nothing behind it",
        "refused with what is there",
        AT_THE_START,
        lambda: {f"deep/{name}": content for name, content in good(2).items()},
        says=r"name those below it as .*/\*\*/\*\.tar",
        shards="",
    ),
    Row(
        "`clip7.00000.jpg`, `clip7.00001.jpg`, ..",
        "set aside: `data.key_ends_at=last_dot` makes samples of them",
        TOLD,
        lambda: {**good(1), "9.tar": tar_bytes(pairs(30, name="clip7.{:05d}"))},
        samples=4,
        set_aside="data.key_ends_at=last_dot would make 30 samples of it",
        says=r"not read +60 images or texts",
    ),
    Row(
        "the same with that key",
        "trained on",
        "–",
        lambda: {"9.tar": tar_bytes(pairs(30, name="clip7.{:05d}"))},
        samples=30,
        overrides=("data.key_ends_at=last_dot",),
    ),
    Row(
        "`photo.large.jpg` or a mask beside `photo.jpg`",
        "counted by its suffix, not read",
        TOLD,
        lambda: {
            "0.tar": tar_bytes(
                [*pairs(1, name="photo"), ("photo.large.jpg", image(5)), ("photo.seg.png", picture())]
            )
        },
        samples=1,
        says=r"not read +2 images or texts whose suffix is not read: \.large\.jpg \(1\), \.seg\.png \(1\)",
    ),
    Row(
        "`x.input.jpg` with `x.outputs.txt`",
        "set aside with the suffixes that there are and the key",
        TOLD,
        lambda: {**good(1), "9.tar": tar_bytes(pairs(3, suffixes=("input.jpg", "outputs.txt")))},
        samples=4,
        set_aside="no image: it has .input.jpg .outputs.txt; data.image_suffixes",
        says="not read +6",
    ),
    Row(
        "the same with `data.image_suffixes='[input.jpg]' data.text_suffixes='[outputs.txt]'`",
        "trained on",
        "–",
        lambda: {"9.tar": tar_bytes(pairs(3, suffixes=("input.jpg", "outputs.txt")))},
        samples=3,
        overrides=("data.image_suffixes=[input.jpg]", "data.text_suffixes=[outputs.txt]"),
    ),
    Row(
        ".jfif, .gif of one frame, .bmp, .tif",
        "trained on",
        "–",
        lambda: {
            "0.tar": tar_bytes(
                [
                    m
                    for at, (suffix, kind) in enumerate(
                        (("jfif", "JPEG"), ("gif", "GIF"), ("bmp", "BMP"), ("tif", "TIFF"))
                    )
                    for m in ((f"{at}.{suffix}", image(at, kind)), (f"{at}.txt", b"a dog"))
                ]
            )
        },
        samples=4,
    ),
    Row(
        "`._x.jpg` and `__MACOSX/` of macOS, in folders too",
        "skipped",
        "–",
        lambda: {
            "0.tar": tar_bytes([("a/._0.jpg", b"-"), ("__MACOSX/a/x.jpg", b"-"), *pairs(2, name="a/{}")])
        },
        samples=2,
    ),
    Row(
        "a tar made without `--sort=name`",
        "set aside, with that remedy",
        TOLD,
        lambda: {**good(1), "9.tar": tar_bytes(sorted(pairs(4, 9), key=lambda member: member[0][-3:]))},
        samples=4,
        set_aside="tar --sort=name",
    ),
    Row(
        "entities, tags, byte order marks, NUL, invisible characters, mojibake in captions",
        "cleaned once, before parser and tokenizer",
        TOLD,
        lambda: captioned(
            "a man &amp; a woman", "a <b>red</b> dog", "\ufeffa cat", "a\0 bird", "a zero\u200b width"
        ),
        samples=5,
        says=r"cleaned +5 captions",
    ),
    Row(
        "a .txt of several lines",
        "each line that says something is a caption, in a tar as in a folder",
        "–",
        lambda: captioned("a dog\r\n\na cat\n"),
        samples=1,
    ),
    Row(
        "a caption of blanks, entities or invisible characters alone",
        "set aside",
        TOLD,
        lambda: captioned("a dog", "&nbsp;\u200b"),
        samples=1,
        set_aside="no caption in",
        says="",
    ),
    Row(
        "fewer tars than `index.json` or the stats list",
        "what is absent counts against `data.max_quarantined`",
        TOLD,
        lambda: {
            **good(2),
            "index.json": json.dumps(
                {"shards": [{"name": f"{n}.tar", "samples": 4 - 3 * (n > 1)} for n in range(3)]}
            ),
        },
        samples=8,
        says=r"absent +recorded and not there: 1 shards",
        overrides=("data.max_quarantined=0.2",),
    ),
    Row(
        "hard or symbolic links in a tar, as of deduplicated folders",
        "their samples are set aside, with `tar --dereference --hard-dereference`",
        TOLD,
        lambda: {**good(1), "9.tar": linked(*pairs(1, 20), ("x.jpg", "000020.jpg"), ("x.txt", "000020.txt"))},
        samples=5,
        set_aside="tar --dereference --hard-dereference",
    ),
    Row(
        "members named as by `tar -P`, with `./`, or with `\\` of Windows",
        "trained on",
        "–",
        lambda: {
            "0.tar": tar_bytes([*pairs(1, 0, "/data/{}"), *pairs(1, 1, ".//{}"), *pairs(1, 2, "a\\{}")])
        },
        samples=3,
    ),
    Row(
        "tars joined with `cat`",
        "the first is trained on; `tar --concatenate` joins them",
        TOLD,
        lambda: {**good(1), "9.tar": tar_bytes(pairs(2, 20)) + tar_bytes(pairs(2, 30))},
        samples=6,
        says="cut short +1 shards",
        set_aside="tar --concatenate",
    ),
    Row(
        "a `.json` of something else beside a `.txt`",
        "the `.txt` is the caption",
        TOLD,
        lambda: {"0.tar": tar_bytes([*pairs(1), ("000000.json", b"[1, 2]")])},
        samples=1,
        says="beside an unusable .json",
    ),
    Row(
        "captions `nan`, `None`, `NULL` alone",
        "set aside, as blank ones",
        TOLD,
        lambda: captioned("a dog", "nan"),
        samples=1,
        set_aside="no caption in",
    ),
)
"""In the order of the README."""
