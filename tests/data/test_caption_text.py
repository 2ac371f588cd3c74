"""Captions are cleaned in one way: parser and tokenizer read the same clean text, from shards and from calls."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sclip.config import DataConfig
from sclip.data.caption_text import clean_caption, cleaned
from sclip.data.shards import Rejected, Sample, read_shard
from sclip.data.tar import Tally
from sclip.scenegraph import Parser
from support.small_model import small_scorer
from support.tars import tar_bytes

DIRTY = [
    ("a man &amp;amp; a woman on a bench", "a man & a woman on a bench", "entities"),
    ("a dog&#39;s bowl", "a dog's bowl", "entities"),
    ("a dog&#8217s bowl", "a dog's bowl", "entities, typographic characters"),
    ("&lt;b&gt;red&lt;/b&gt; car", "red car", "entities, tags"),
    ("a <b>red</b> car<br>in a <span class='x'>street</span>", "a red car in a street", "tags"),
    ('a dog on a <a href="http://x/y?a=1', "a dog on a", "tags"),
    ("a dog <end_of_text> on a mat<|endoftext|>", "a dog on a mat", "tags"),
    ("<style>p {color: red}</style>a dog<SCRIPT src='x'>f()</SCRIPT>", "a dog", "tags"),
    ("<<b>b>a dog", "a dog", "tags"),
    ("\ufeffa dog on a mat", "a dog on a mat", "byte order mark"),
    ("a dog\u200b on a m\u00adat\u200e", "a dog on a mat", "invisible characters"),
    ("a dog\x00 on\x07 a \x1b[31mmat", "a dog on a mat", "control characters"),
    ("a man who donâ€™t sit", "a man who don't sit", "mojibake, typographic characters"),
    ("a man’s “red” hat", "a man's \"red\" hat", "typographic characters"),
    ("ａ ﬁre in a cafe\u0301", "a fire in a café", "typographic characters"),
    ("a dog\r\n on\ta \u2028mat\xa0 \u3000", "a dog on a mat", ""),
]  # fmt: skip
CLEAN = [
    "a dog on a mat", "R&D at AT&T", "I <3 dogs", "a < b and c > d", "<a and b>", "<unknown> on a mat", "5 & 6",
    "a man named None", "nan bread", "a ❤\ufe0f on a mat", "a[b[0]] > 0",
    "a 👩\u200d🚀 in space", "می\u200cخواهم", "½ of a crêpe — 20 °C", "a man & a woman",
]  # fmt: skip


def read(shard: Path, body: bytes, name: str = "a.txt") -> tuple[Sample | Rejected, Tally]:
    shard.write_bytes(tar_bytes([("a.jpg", b"i"), (name, body)]))
    tally = Tally()
    (item,) = read_shard(str(shard), tally=tally)
    return item, tally


@pytest.mark.parametrize(("dirty", "clean", "kinds"), DIRTY)
def test_markup_and_invisible_characters_are_removed_from_captions_and_counted(
    tmp_path: Path, dirty: str, clean: str, kinds: str
) -> None:
    sample, tally = read(tmp_path / "a.tar", json.dumps({"caption": dirty}).encode(), "a.json")
    assert isinstance(sample, Sample)
    assert sample.captions == (clean,)
    assert tally.cleaned == dict.fromkeys(filter(None, kinds.split(", ")), 1)


def test_a_scorer_parses_and_encodes_dirty_captions_like_clean_ones(parser: Parser) -> None:
    scorer, dirty, clean = small_scorer(), [row[0] for row in DIRTY], [row[1] for row in DIRTY]
    graphs = scorer.scene_graph(dirty)
    assert graphs == parser.parse(clean)
    assert [graph.caption for graph in graphs] == clean
    assert scorer.encode_text(dirty).equal(scorer.encode_text(clean))


@pytest.mark.parametrize("caption", CLEAN)
def test_a_clean_caption_stays_unchanged(caption: str) -> None:
    assert cleaned(caption) == (caption, ())


MARKUP = (
    "& &amp amp; lt; &lt; &gt; < > <b> </b> b / = <a href= &# 39; 3 dog \u200b \u200d \ufeff é Ã © â€ ™ \x80 \x99 "
    "\x00 \x1b [31m \x85 \xa0 ’ ﬁ Ａ ＜ ＆ ； 👩 \ud83d \ude00 \u0301 \xad \u2028 end_of_text <|endoftext|> &not it; "
    "copy ï»¿ ŉ"
).split(" ")


@settings(max_examples=250)
@given(st.text(max_size=40) | st.lists(st.sampled_from([*MARKUP, " "]), max_size=9).map("".join))
@example("&amp;" + "amp;" * 50)
@example("<" * 50 + "b>" * 50)
@example("black&notebook &notin; &copy2024")
def test_cleaning_again_changes_nothing_and_open_clip_has_nothing_left_to_clean(caption: str) -> None:
    clean = clean_caption(caption)
    assert cleaned(clean) == (clean, ())
    assert open_clip.tokenizer._clean_whitespace(clean) == clean


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        (b"a dog\n\n  \r\na cat\ra cow\r\n", ("a dog", "a cat", "a cow")),
        ("\ufeffa dog\r\na café".encode("utf-16-le"), ("a dog", "a café")),
        ("\ufeffa dog".encode("utf-32-le"), ("a dog",)),
        ("a dog\u2028on a mat\x0b".encode(), ("a dog on a mat",)),
        (b"nan\nNaN \nNULL\nNone\n&lt;NA&gt;\n<NA>\na dog", ("a dog",)),
        ("\ufe0f\n\u3164\n\u115f \u2800\n\ufffd\ufffd\na dog".encode(), ("a dog",)),
        (b"\xef\xbb\xbf \n\xc2\xa0&nbsp;<br>", "no caption in .json captions, .json caption or .txt"),
        (b"a dog\n\xff\xfe", ".txt is not UTF-8: invalid start byte at byte 6"),
        (b"\xff\xfea", ".txt is not UTF-16-LE: truncated data at byte 2"),
    ],
)
def test_each_nonempty_line_of_a_txt_is_a_caption_and_a_txt_without_one_is_rejected(
    tmp_path: Path, content: bytes, captions: tuple[str, ...] | str
) -> None:
    item, tally = read(tmp_path / "a.tar", content)
    if isinstance(captions, str):
        assert item == Rejected(0, "a", captions)
        assert not tally.cleaned
    else:
        assert item == Sample(0, "a", b"i", captions)
        assert tally.cleaned["byte order mark"] == (content[:2] in (b"\xef\xbb", b"\xff\xfe"))


@pytest.mark.parametrize("record", ["[]", "null", "", "[1", "\xff", '{"caption": 5}', '{"captions": [{}]}'])
def test_an_unusable_json_is_counted_and_the_txt_beside_it_is_read(tmp_path: Path, record: str) -> None:
    text, no_text = [("a.jpg", b"i"), ("a.txt", b"a &amp; b\nc")], [("b.jpg", b"i"), ("b.txt", b" ")]
    shard = tmp_path / "a.tar"
    unusable = record.encode("latin-1")
    shard.write_bytes(tar_bytes([*text, ("a.json", unusable), *no_text, ("b.json", unusable)]))
    tally = Tally()
    sample, rejected = read_shard(str(shard), tally=tally)
    assert sample == Sample(0, "a", b"i", ("a & b", "c"))
    assert tally.cleaned == {"taken from the text beside an unusable .json": 1, "entities": 1}
    assert isinstance(rejected, Rejected)
    assert "json" in rejected.reason or "holds" in rejected.reason
    assert all(
        isinstance(item, Rejected) for item in read_shard(str(shard), DataConfig(caption_field="caption"))
    )


def test_a_json_without_a_caption_is_rejected_with_the_names_of_its_text_fields(tmp_path: Path) -> None:
    record = json.dumps({"id": 7, "text": "a dog", "alt": " ", "tit\nle": "x", "captions": []})
    reason = "no caption in .json captions, .json caption or .txt (its .json has text in "
    item, _ = read(tmp_path / "a.tar", f"\ufeff{record}".encode(), "a.json")
    assert item == Rejected(0, "a", f"{reason}text, tit\\nle; data.caption_field names what to read)")
