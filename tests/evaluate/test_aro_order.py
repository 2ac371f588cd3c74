"""COCO-Order and Flickr-Order: ARO's perturbations and its cleaning of captions, checked by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclip.evaluate.benchmarks import About
from sclip.evaluate.readers import aro_order
from sclip.evaluate.readers.aro_order import false_captions, pre_caption
from support.made_features import at_angles

ABOUT = About("order", "coco-order", "Which caption is in order.")
TAGGED = [
    ("a", "DT"), ("small", "JJ"), ("dog", "NN"), ("chases", "VBZ"), ("a", "DT"), ("big", "JJ"), ("red", "JJ"),
    ("ball", "NN"), ("quickly", "RB"),
]  # fmt: skip
CAPTION = " ".join(word for word, _ in TAGGED)


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        ("A man, riding a horse.", "a man, riding a horse"),
        ('He said "go!" (twice): #1; 2*3 ~ 6', "he said go twice 1 2 3 6"),
        ("  two   blanks\n", "two blanks"),
        ("It's a dog's life", "it's a dog's life"),
        (" ".join(f"w{n}" for n in range(40)), " ".join(f"w{n}" for n in range(30))),
    ],
)
def test_a_caption_is_cleaned_like_aro_cleans_it(caption: str, read: str) -> None:
    assert pre_caption(caption) == read


def drawn(seed: str) -> tuple[list[str], ...]:
    return tuple(caption.split() for caption in false_captions(seed, CAPTION, TAGGED))


@given(st.integers(0, 10_000))
def test_each_false_caption_has_the_same_words_and_moves_only_the_allowed_ones(seed: int) -> None:
    words = CAPTION.split()
    nouns_adjectives, other_words, within, trigrams = drawn(str(seed))
    for made in (nouns_adjectives, other_words, within, trigrams):
        assert Counter(made) == Counter(words)
    for index, (_, tag) in enumerate(TAGGED):
        if tag not in ("NN", "JJ"):
            assert nouns_adjectives[index] == words[index]
        else:
            assert other_words[index] == words[index]
            assert TAGGED[words.index(nouns_adjectives[index])][1] == tag  # nouns stay among nouns
    threes = [words[start : start + 3] for start in (0, 3, 6)]
    assert [Counter(within[start : start + 3]) for start in (0, 3, 6)] == [Counter(three) for three in threes]
    assert Counter(tuple(trigrams[start : start + 3]) for start in (0, 3, 6)) == Counter(map(tuple, threes))


def test_every_perturbation_varies_with_the_seed_and_is_deterministic_per_seed() -> None:
    columns = zip(*map(drawn, map(str, range(40))), strict=True)
    assert [len({" ".join(made) for made in column}) for column in columns] >= [8, 8, 30, 6]
    assert drawn("val2014/a.jpg#0") == drawn("val2014/a.jpg#0")


def test_trigrams_are_made_of_nltk_tokens_sentence_by_sentence() -> None:
    (_, _, within, _) = false_captions("a", "He can't. She can.", [("He", "PRP")])
    assert Counter(within.split()) == Counter(["he", "ca", "n't", "she", "can"])


def test_the_true_caption_stands_first_so_that_a_tie_is_won(tmp_path: Path) -> None:
    texts = ["A dog.", "Two dogs chase a small red ball while an old man in a blue coat watches them."]
    (tmp_path / "test.json").write_text(json.dumps([{"image": "a.jpg", "caption": texts}]))
    order = aro_order.read(ABOUT, tmp_path / "test.json", tmp_path)
    assert order.sizes() == {"cases": 2}
    short, long = order.choice.cases
    assert short.true == "a dog"
    assert "a dog" in short.false
    assert len({long.true, *long.false}) == 5
    equal_features = at_angles(dict.fromkeys(order.pictures(), 0.0), dict.fromkeys(order.captions(), 0.5))
    result = order.result(equal_features)
    assert result.scores["accuracy"].value == 1
    assert result.counts["ties"] == 2
    short_chance = 1 / len({short.true, *short.false})
    assert result.scores["accuracy"].chance == pytest.approx((short_chance + 1 / 5) / 2)
    true_last = dict.fromkeys(order.captions(), 0.1) | {long.true: 0.9}
    lost = order.result(at_angles(dict.fromkeys(order.pictures(), 0.0), true_last))
    assert lost.won == {"a.jpg#0": True, "a.jpg#1": False}
