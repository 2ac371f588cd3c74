"""A corpus report counts what is there, whoever counted which part of it in which order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclip.negatives import Negative, candidates, draw
from sclip.report import CorpusStatistics, corpus, write
from sclip.scenegraph import Attribute, Object, Parser, Relation, SceneGraph
from support.made_negatives import negative_of

Entry = tuple[str, SceneGraph, Sequence[Negative]]

CAPTIONS = [
    "a small red circle to the left of a blue square",
    "a man rides a horse",
    "a cat and a dog",
    "a red ball",
    "it is raining",
    "",
]


@pytest.fixture(scope="module")
def graphs() -> list[SceneGraph]:
    return Parser().parse(CAPTIONS)


def counted(entries: Sequence[Entry]) -> CorpusStatistics:
    statistics = CorpusStatistics()
    for entry in entries:
        statistics.add(*entry)
    return statistics


def found(graphs: Sequence[SceneGraph]) -> list[Entry]:
    return [(str(i), graph, candidates(graph)) for i, graph in enumerate(graphs)]


def merged(*parts: CorpusStatistics) -> CorpusStatistics:
    whole = CorpusStatistics()
    for part in parts:
        whole.merge(CorpusStatistics.from_json(json.loads(json.dumps(part.to_json()))))
    return whole


def test_every_caption_is_counted_by_what_it_has(graphs: list[SceneGraph]) -> None:
    statistics = counted(found(graphs))
    assert statistics.captions == 6
    assert statistics.with_object == 4
    assert statistics.with_triple == 3
    assert statistics.share("with_object") == pytest.approx(4 / 6)
    assert statistics.mean("objects") == pytest.approx(7 / 6)
    assert statistics.attribute_words.most(1) == [("red", 2)]
    assert statistics.predicates.most() == [("at the left of", 1), ("ride", 1)]


def test_captions_are_counted_by_the_kinds_of_negative_that_they_have(graphs: list[SceneGraph]) -> None:
    relation, attribute = (negative_of("a b", kind=kind) for kind in ("relation", "attribute"))
    lists = [[], [relation], [attribute], [relation, relation, attribute]]
    statistics = counted([(str(i), graphs[0], negatives) for i, negatives in enumerate(lists)])
    assert statistics.with_negative == 3
    assert (statistics.with_relation_negative, statistics.with_attribute_negative) == (2, 2)
    assert statistics.negatives == 5


def test_an_empty_corpus_has_means_and_shares(tmp_path: Path) -> None:
    statistics = CorpusStatistics()
    assert (statistics.mean("objects"), statistics.share("with_negative")) == (0.0, 0.0)
    assert "0" in write(statistics, tmp_path, "nothing").read_text()


def test_examples_show_the_negative_that_training_would_draw(graphs: list[SceneGraph]) -> None:
    examples = list(counted(found(graphs)).examples)
    assert {example.graph.caption for example in examples} == set(CAPTIONS)
    for example in examples:
        drawn = draw(candidates(example.graph), seed=0, epoch=0, identity=example.identity)
        assert (drawn and drawn.to_json()) == (example.negative and example.negative.to_json())
    assert any(example.negative for example in examples)


_NAMES = st.sampled_from(["dog", "cat", "red ball", "<b>", "犬"])


@st.composite
def _entries(draw: st.DrawFn) -> list[Entry]:
    entries = []
    for number in range(draw(st.integers(0, 60))):
        names = draw(st.lists(_NAMES, max_size=3))
        place = st.integers(0, max(0, len(names) - 1))
        attributes = draw(st.lists(st.tuples(place, _NAMES), max_size=2)) if names else []
        relations = draw(st.lists(st.tuples(place, _NAMES, place), max_size=2)) if names else []
        graph = SceneGraph(
            " ".join(names),
            tuple(Object(name, (0, 1), (0, 1)) for name in names),
            tuple(Attribute(k, word, (0, 0)) for k, word in attributes),
            tuple(Relation(k, word, other, (0, 0)) for k, word, other in relations),
        )
        kinds = draw(st.lists(st.sampled_from(["relation", "attribute"]), max_size=2))
        negatives = [negative_of(f"not {graph.caption}", kind=kind, graph=graph) for kind in kinds]
        entries.append((str(number), graph, negatives))
    return entries


@settings(max_examples=60)
@given(_entries(), st.data())
def test_parts_merge_into_the_whole_in_any_grouping_and_order(
    entries: list[Entry], data: st.DataObject
) -> None:
    whole = counted(entries).to_json()
    shuffled = data.draw(st.permutations(entries))
    first, second = sorted(data.draw(st.tuples(st.integers(0, 60), st.integers(0, 60))))
    parts = [counted(part) for part in (shuffled[:first], shuffled[first:second], shuffled[second:])]
    assert merged(*parts).to_json() == whole
    assert merged(parts[2], merged(parts[1], parts[0])).to_json() == whole
    assert merged(merged(parts[0], parts[1]), parts[2]).to_json() == whole


def test_as_many_examples_are_kept_of_a_large_corpus_as_of_a_small_one() -> None:
    graphs = [SceneGraph(f"caption {i}") for i in range(1000)]
    keys = [example.identity for example in counted(found(graphs)).examples]
    assert len(set(keys)) == corpus.EXAMPLES
    assert sorted(map(int, keys)) != list(range(corpus.EXAMPLES))


def test_rare_words_of_a_large_corpus_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "WORDS_KEPT", 3)
    words = corpus.WordCounts()
    for number in range(50):
        words.update(["common", "common", f"rare-{number}"])
    other = corpus.WordCounts()
    other.update(["common", "frequent", "frequent"])
    words.merge(other)
    assert len(words.counts) == 3
    assert words.most(2) == [("common", 101), ("frequent", 2)]
    assert words.counts.total() + words.dropped == 153
