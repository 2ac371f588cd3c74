"""Token ids equal open_clip's for any text; only their computation is shorter."""

from __future__ import annotations

import functools

import numpy as np
import open_clip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sclip.config import KEEConfig, ModelConfig
from sclip.data.caption_text import clean_caption
from sclip.model.tokenizer import PADDING, Tokenizer

NAME = "ViT-B-32"
theirs = functools.cache(open_clip.get_tokenizer)
ours = functools.cache(lambda: Tokenizer(ModelConfig(name=NAME, kee=KEEConfig(triples=2, phrase_tokens=3))))

WRITTEN = st.text(st.characters(codec="ascii"), max_size=120)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
WORDS = st.lists(
    st.sampled_from(
        "A dog's Dog DOG don't I'VE 42 4x4 <start_of_text> <END_OF_TEXT> &amp; &lt;b&gt; schÃ¶n café ﬁre ＡＢ “q” "
        "\x1b[31m \r\n \t \x00 \x7f ~ _ -- ... 日本語 🙂".split(" ")
    ),
    max_size=12,
).map(" ".join)


@settings(max_examples=150)
@given(WRITTEN | TEXT | WORDS)
@example("")
@example(" A  photo\tof\n&quot;two&quot; dogs ")
@example("dog " * 74)
@example("dog " * 75)
@example("dog " * 76)
def test_the_ids_of_a_caption_equal_those_of_open_clip(caption: str) -> None:
    np.testing.assert_array_equal(ours().text([caption]), theirs(NAME)([caption]).numpy())


def clean_ids(text: str) -> list[int]:
    """Return the ids of a clean text without ftfy, which could change a cut text once more."""
    bpe = theirs(NAME)
    spelled = ("".join(map(bpe.byte_encoder.get, word.encode())) for word in bpe.pat.findall(text.lower()))
    return [bpe.encoder[part] for word in spelled for part in bpe.bpe(word).split(" ")]


@settings(max_examples=100)
@given(st.lists(WORDS | TEXT, min_size=1, max_size=12).map(" ".join), st.integers(1, 9))
@example("a dog\u0130! " * 40, 1)
@example("A 0000\x83\xdf0\u0800\xc2\U000191d3", 4)
def test_the_tower_reads_to_the_end_of_the_last_word_that_fits(text: str, times: int) -> None:
    caption = clean_caption(" ".join([text] * times))
    tokens, room = theirs(NAME).encode(caption), ours().context_length - 2
    end = ours().read_end(caption)
    read = clean_ids(caption[:end])
    assert len(read) <= room
    if len(caption.lower()) != len(caption):
        return  # the lower case of "\u0130" is two words, and the tower may read only one of them
    assert tokens[: len(read)] == read
    assert (end == len(caption)) == (len(tokens) <= room)
    if end < len(caption):
        following = theirs(NAME).pat.match(caption, end + caption[end:].startswith(" "))
        assert len(read) + len(clean_ids(following[0])) > room


@given(st.lists(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=3), max_size=4))
@settings(max_examples=100)
def test_the_ids_of_triples_are_those_of_their_phrases_cut_or_padded(
    triples: list[list[tuple[str, str, str]]],
) -> None:
    ids = ours().triples(triples)
    assert ids.shape == (len(triples), 2, 3, 3)
    assert ids.dtype == np.int32
    for row, caption_triples in zip(ids, triples, strict=True):
        for k in range(2):
            for part in range(3):
                tokens = theirs(NAME).encode(caption_triples[k][part])[:3] if k < len(caption_triples) else []
                assert row[k, part].tolist() == tokens + [PADDING] * (3 - len(tokens))
