"""Write small shards in which every known defect stands among good samples, and list what must happen to them.

`Planted` lists the samples that must be trained on, and the expected quarantine entries: shard, key and a part of the
reason. Training, annotating and validating are held to the same list. A few members are pickles that would create
the file `Planted.marker` if anything ever unpickled them.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from support.pictures import animated, encoded, huge, noise, swelling

SIDE = 64
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
RELATIONS = ("to the left of", "to the right of", "above", "below")


@dataclass
class Planted:
    folder: Path
    good: dict[str, list[str]] = field(default_factory=dict)
    """Keys of the samples that must be trained on, by shard and in order."""
    defects: list[tuple[str, str, str]] = field(default_factory=list)
    """Shard, key (empty for the unreadable rest of the shard), and a part of the reason."""

    @property
    def marker(self) -> Path:
        """Return the path of a file that exists once a pickle has been loaded."""
        return self.folder / "UNPICKLED"

    @property
    def shards(self) -> list[str]:
        return [str(self.folder / name) for name in sorted(self.good)]


class Mark:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


class Shard:
    """A tar being written. Each method that adds a sample also records what must become of it."""

    def __init__(self, planted: Planted, name: str, rng: random.Random) -> None:
        self.planted, self.name, self.rng = planted, name, rng
        self.ends: list[int] = []
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.GNU_FORMAT)
        planted.good[name] = []

    def member(self, name: str, body: bytes | str = b"", **header: Any) -> None:
        info = tarfile.TarInfo(name)
        content = body.encode() if isinstance(body, str) else body
        info.size = len(content)
        for field_name, value in header.items():
            setattr(info, field_name, value)
        self._tar.addfile(info, io.BytesIO(content))

    def good(self, key: str = "", image: bytes = b"", suffix: str = "jpg", caption: str = "") -> str:
        """Add a sample that must be trained on; return its key."""
        keys = self.planted.good[self.name]
        key = key or f"{Path(self.name).stem}-{len(keys):02d}"
        self.member(f"{key}.{suffix}", image or jpeg(self.rng))
        self.member(f"{key}.txt", caption or sentence(self.rng))
        keys.append(key.replace("\\", "/").lstrip("./"))
        self.ends.append(self._buffer.tell())
        return key

    def bad(self, key: str, reason: str, **members: bytes | str) -> None:
        """Add a sample that must be set aside (`members` maps suffix to content), and a good sample after it."""
        for suffix, body in members.items():
            self.member(f"{key}.{suffix.replace('__', '.')}", body)
        self.expect(key, reason)
        self.good()

    def expect(self, key: str, reason: str) -> None:
        self.planted.defects.append((self.name, key, reason))

    def write(self, change: Callable[[bytes], bytes] = bytes) -> None:
        self._tar.close()
        (self.planted.folder / self.name).write_bytes(change(self._buffer.getvalue()))


def sentence(rng: random.Random) -> str:
    first, second = rng.sample(COLOURS, 2)
    return f"a small {first} circle {rng.choice(RELATIONS)} a {second} square"


def picture(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), (rng.randint(100, 255),) * 3)
    draw = ImageDraw.Draw(image)
    draw.ellipse((4, 20, 24, 40), rng.choice(COLOURS))
    draw.rectangle((34, 16, 60, 44), rng.choice(COLOURS))
    return image


def jpeg(rng: random.Random) -> bytes:
    return encoded(picture(rng), "JPEG")


def write(folder: Path, seed: int = 0) -> Planted:
    """Create the folder, write the shards into it, and return what was planted."""
    folder.mkdir(parents=True, exist_ok=True)
    planted, rng = Planted(folder), random.Random(seed)
    for name, fill in {
        "good": _oddities, "images": _images, "members": _members, "captions": _captions, "names": _names,
    }.items():  # fmt: skip
        shard = Shard(planted, f"{name}.tar", rng)
        shard.good()
        fill(shard)
        shard.write()
    _cut_shards(planted, rng)
    for name, content in {"empty": b"", "garbage": rng.randbytes(5_000), "page": b"<html>404" * 200}.items():
        (folder / f"{name}.tar").write_bytes(content)
        planted.good[f"{name}.tar"] = []
        planted.defects.append((f"{name}.tar", "", "not a tar"))
    planted.defects.sort()
    return planted


def _oddities(shard: Shard) -> None:
    mark = pickle.dumps(Mark(shard.planted.marker))
    plain = picture(shard.rng)
    deep = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    shard.good("cmyk", encoded(plain.convert("CMYK"), "JPEG"))
    shard.good("deep", encoded(deep), "png")
    shard.good("grey", encoded(plain.convert("L"), "JPEG"))
    shard.good("alpha", encoded(plain.convert("RGBA")), "png")
    shard.good("palette", encoded(plain.quantize(16)), "png")
    shard.good("webp", encoded(plain, "WEBP"), "webp")
    shard.good("gif", encoded(plain, "GIF"), "gif")
    shard.good("bitmap", encoded(plain.convert("1"), "BMP"), "bmp")
    shard.good("print", encoded(plain.convert("CMYK"), "TIFF"), "tif")
    shard.good("download", encoded(plain, "JPEG"), "jfif")
    shard.good("png-as-jpg", encoded(plain))
    shard.good("two-in-one", encoded(plain, "MPO", save_all=True, append_images=[plain]))
    shard.good("emoji", caption="a small red circle \U0001f534 to the left of a blue square \U0001f7e6")
    shard.good("accents", caption="un petit cercle rouge à gauche d'un carré bleu")
    shard.good("upper", suffix="JPG")
    shard.good("./dotted")
    shard.good("folder/below")
    shard.good("json")
    shard.member("json.json", json.dumps({"caption": sentence(shard.rng), "url": None}))
    shard.good("pickles-beside")
    for suffix in ("pkl", "pyd", "cls.pkl", "pickle", "pt"):
        shard.member(f"pickles-beside.{suffix}", mark)
    shard.member("README", "no sample")
    shard.member("._dotted.jpg", "what macOS puts beside a file")
    shard.member("folder/._below.jpg", "what macOS puts beside a file")
    shard.member("__MACOSX/folder.jpg", "what macOS puts into a zip")
    shard.member("__extra__/about.txt", "no sample either")
    for _ in range(10):
        shard.good()


def _images(shard: Shard) -> None:
    whole = encoded(noise(SIDE, SIDE), "JPEG")
    plain = encoded(picture(shard.rng))
    broken = whole[:20] + bytes(300) + whole[320:]
    for key, reason, suffix, image in (
        ("broken", "not a readable image", "jpg", broken),
        ("truncated", "not a readable image", "jpg", whole[: len(whole) // 2]),
        ("truncated-png", "not a readable image", "png", plain[: len(plain) // 2]),
        ("text", "not a readable image: none of JPEG", "jpg", b"<html>not found</html>"),
        ("pickle-as-jpg", "none of JPEG", "jpg", pickle.dumps(Mark(shard.planted.marker))),
        ("eps", "none of JPEG", "jpg", encoded(picture(shard.rng), "EPS")),
        ("bomb", "9000 x 9000 pixels, more than", "png", huge(9_000)),
        ("larger-bomb", "more than 64000000 pixels", "png", huge(60_000)),
        ("swelling-text", "too large", "png", swelling("zTXt", 64 * 2**20)),
        ("swelling-profile", "too large", "png", swelling("iCCP", 64 * 2**20)),
        ("animated-png", "3 frames", "png", animated("PNG")),
        ("animated-webp", "3 frames", "webp", animated("WEBP")),
        ("gif-as-png", "3 frames", "png", animated("GIF")),
        ("one-pixel", "1 x 1 pixels, less than", "png", encoded(Image.new("RGB", (1, 1)))),
        ("rule", "300 x 2 pixels, less than", "jpg", encoded(Image.new("RGB", (300, 2)), "JPEG")),
    ):
        shard.bad(key, reason, **{suffix: image, "txt": sentence(shard.rng)})


def _members(shard: Shard) -> None:
    image, text = jpeg(shard.rng), sentence(shard.rng)
    mark = pickle.dumps(Mark(shard.planted.marker))
    shard.bad("no-image", "no image", txt=text)
    shard.bad("no-caption", "no caption", jpg=image)
    shard.bad("empty-image", "no image: .jpg is empty", jpg=b"", txt=text)
    shard.bad("other-image", "no image: it has .heic .txt", heic=encoded(picture(shard.rng), "GIF"), txt=text)
    shard.bad("input", "it has .input.jpg .txt; data.image_suffixes names", input__jpg=image, txt=text)
    shard.bad("pickles-only", "no image", pkl=mark, pyd=mark)
    shard.bad("pickled-caption", "no caption", jpg=image, cls__pkl=mark)
    first = shard.good("twice")
    shard.good()
    shard.bad(first, "its key occurs earlier", jpg=image, txt=text)
    for suffix, body in (("jpg", image), ("txt", text)):
        for key in ("crossed-a", "crossed-b"):
            shard.member(f"{key}.{suffix}", body)
            shard.expect(key, "no caption" if suffix == "jpg" else "its key occurs earlier")
    shard.good()
    shard.member("two-images.jpg", image)
    shard.bad("two-images", "two .jpg members", jpg=jpeg(shard.rng), txt=text)
    shard.member("two-texts.txt", text)
    shard.bad("two-texts", "two .txt members", jpg=image, txt=sentence(shard.rng))


def _captions(shard: Shard) -> None:
    image = jpeg(shard.rng)
    for key, reason, suffix, body in (
        ("empty", "no caption", "txt", b""),
        ("blank", "no caption", "txt", b" \n\t "),
        ("latin", ".txt is not UTF-8", "txt", "cercle à gauche".encode("latin-1")),
        ("utf-16", ".txt is not UTF-16-LE", "txt", sentence(shard.rng).encode("utf-16")[:-1]),
        ("unseen", "no caption", "txt", "\ufeff&nbsp;\u200b<br>".encode()),
        ("long", "more than 65536", "txt", b"a dog " * (2**20 // 6)),
        ("longer", "more than 1048576", "txt", b"a dog " * (2**20 // 6 + 1)),
        ("broken", ".json is not readable", "json", b'{"caption": "a dog'),
        ("deep", ".json is not readable", "json", b'{"caption": ' + b"[" * 100_000),
        ("latin-json", ".json is not readable", "json", b'{"caption": "\xe0"}'),
        ("list", ".json holds a list", "json", b'["a dog"]'),
        ("number", "caption holds int", "json", b'{"caption": 5}'),
        ("nested", "captions holds dict", "json", b'{"captions": [{"text": "a dog"}]}'),
        ("null", "no caption", "json", b'{"caption": null, "captions": []}'),
        ("surrogate", "caption is not UTF-8", "json", b'{"caption": "a dog \\ud800"}'),
        ("long-json", "more than 65536", "json", b'{"caption": "' + b"a dog " * 20_000 + b'"}'),
    ):
        shard.bad(key, reason, **{"jpg": image, suffix: body})


def _names(shard: Shard) -> None:
    image, text = jpeg(shard.rng), sentence(shard.rng)
    for key in ("../up", "folder/../../up"):
        shard.bad(key, "its name contains ..", jpg=image, txt=text)
    shard.member("..\\windows.jpg", image)
    shard.expect("../windows", "its name contains ..")
    for key in ("/tmp/absolute", "folder\\up", "C:\\windows", ".//twice"):
        shard.good(key)
    shard.member("k\udcff\udcfe.jpg", image)
    shard.member("k\udcff\udcfe.txt", text)
    shard.expect("k\\udcff\\udcfe", "its name is not UTF-8")
    link = ".jpg is a link to '/etc/passwd'; make the tar with tar --dereference"
    for key, kind, reason in (
        ("symlink", tarfile.SYMTYPE, link), ("hardlink", tarfile.LNKTYPE, link),
        ("device", tarfile.CHRTYPE, "no image"), ("block", tarfile.BLKTYPE, "no image"),
        ("pipe", tarfile.FIFOTYPE, "no image"), ("directory", tarfile.DIRTYPE, "no image"),
    ):  # fmt: skip
        shard.member(f"{key}.jpg", type=kind, linkname="/etc/passwd")
        shard.bad(key, reason, txt=text)


def _cut_shards(planted: Planted, rng: random.Random) -> None:
    block = tarfile.BLOCKSIZE

    def started(name: str, samples: int, reason: str) -> Shard:
        shard = Shard(planted, f"{name}.tar", rng)
        keys = [shard.good() for _ in range(samples)]
        shard.expect("", f"broken tar, last key {keys[-1]!r}" + reason)
        return shard

    shard = started("cut-in-header", 6, "")
    end = shard.ends[-1]
    shard.good()
    planted.good[shard.name].pop()
    shard.write(lambda tar: tar[: end + block // 2])

    shard = started("cut-in-member", 6, "")
    shard.member("cut.jpg", jpeg(rng))
    planted.defects[-1] = (shard.name, "", "broken tar, last key 'cut'")
    end = shard.ends[-1]
    shard.write(lambda tar: tar[: end + block + 100])

    shard = started("no-end", 6, ": the file ends without the end-of-archive marker")
    end = shard.ends[-1]
    shard.write(lambda tar: tar[:end])

    shard = started("two-tars", 6, ": data follows its end-of-archive marker")
    shard.write(lambda tar: tar + tar)

    shard = started("cut-gzip", 12, "")
    ends = shard.ends

    def cut(tar: bytes) -> bytes:
        content = gzip.compress(tar, mtime=0)
        content = content[: len(content) * 2 // 3]
        readable = len(zlib.decompressobj(31).decompress(content))
        keys = planted.good[shard.name] = planted.good[shard.name][: sum(end <= readable for end in ends)]
        planted.defects[-1] = (shard.name, "", f"broken tar, last key '{keys[-1][:-2]}")
        return content

    shard.write(cut)
