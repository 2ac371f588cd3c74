"""A corpus report has the same counts for every split of the corpus and every order of its parts."""

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
    "a small red circle to the left of a blue square", "a man rides a horse", "a cat and a dog", "a red ball",
    "it is raining", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def graphs(parser: Parser) -> list[SceneGraph]:
    return parser.parse(CAPTIONS)


def counted(entries: Sequence[Entry]) -> CorpusStatistics:
    statistics = CorpusStatistics()
    for entry in entries:
        statistics.add(*entry)
    return statistics


def entries_of(graphs: Sequence[SceneGraph]) -> list[Entry]:
    return [(str(i), graph, candidates(graph)) for i, graph in enumerate(graphs)]


def merged(*parts: CorpusStatistics) -> CorpusStatistics:
    whole = CorpusStatistics()
    for part in parts:
        whole.merge(CorpusStatistics.from_json(json.loads(json.dumps(part.to_json()))))
    return whole


def test_captions_are_counted_by_the_objects_and_triples_that_they_have(
    graphs: list[SceneGraph], tmp_path: Path
) -> None:
    statistics = counted(entries_of(graphs))
    assert statistics.captions == 6
    assert statistics.with_object == 4
    assert statistics.with_triple == 3
    assert statistics.share("with_object") == pytest.approx(4 / 6)
    assert statistics.mean("objects") == pytest.approx(7 / 6)
    assert statistics.attribute_words.most(1) == [("red", 2)]
    assert statistics.predicates.most() == [("at the left of", 1), ("ride", 1)]
    empty = CorpusStatistics()
    assert (empty.mean("objects"), empty.share("with_negative")) == (0.0, 0.0)
    assert "0" in write(empty, tmp_path, "nothing").read_text()


def test_captions_are_counted_by_the_kinds_of_negative_that_they_have(graphs: list[SceneGraph]) -> None:
    relation, attribute = (negative_of("a b", kind=kind) for kind in ("relation", "attribute"))
    lists = [[], [relation], [attribute], [relation, relation, attribute]]
    statistics = counted([(str(i), graphs[0], negatives) for i, negatives in enumerate(lists)])
    assert statistics.with_negative == 3
    assert (statistics.with_relation_negative, statistics.with_attribute_negative) == (2, 2)
    assert statistics.negatives == 5


def test_examples_show_the_negative_that_training_would_draw(graphs: list[SceneGraph]) -> None:
    examples = list(counted(entries_of(graphs)).examples)
    assert {example.graph.caption for example in examples} == set(CAPTIONS)
    for example in examples:
        drawn = draw(candidates(example.graph), seed=0, epoch=0, identity=example.identity)
        assert (drawn and drawn.to_json()) == (example.negative and example.negative.to_json())
    assert any(example.negative for example in examples)


CHASE = SceneGraph(
    "a dog chases a <b>",
    (Object("dog", (0, 1), (0, 1)), Object("<b>", (0, 1), (0, 1))),
    (Attribute(1, "犬", (0, 0)),),
    (Relation(0, "chase", 1, (0, 0)),),
)
GRAPHS = st.sampled_from([CHASE, SceneGraph("dog", (Object("dog", (0, 1), (0, 1)),)), SceneGraph("")])
KINDS = st.lists(st.sampled_from(["relation", "attribute"]), max_size=2)


@settings(max_examples=60)
@given(st.lists(st.tuples(GRAPHS, KINDS), max_size=60), st.data())
def test_parts_merge_into_the_whole_in_any_grouping_and_order(
    drawn: list[tuple[SceneGraph, list[str]]], data: st.DataObject
) -> None:
    entries: list[Entry] = [
        (str(number), graph, [negative_of(f"not {graph.caption}", kind=kind, graph=graph) for kind in kinds])
        for number, (graph, kinds) in enumerate(drawn)
    ]
    whole = counted(entries).to_json()
    shuffled = data.draw(st.permutations(entries))
    first, second = sorted(data.draw(st.tuples(st.integers(0, 60), st.integers(0, 60))))
    parts = [counted(part) for part in (shuffled[:first], shuffled[first:second], shuffled[second:])]
    assert merged(*parts).to_json() == whole
    assert merged(parts[2], merged(parts[1], parts[0])).to_json() == whole
    assert merged(merged(parts[0], parts[1]), parts[2]).to_json() == whole


def test_a_fixed_number_of_examples_is_kept_of_a_large_corpus() -> None:
    graphs = [SceneGraph(f"caption {i}") for i in range(1000)]
    keys = [example.identity for example in counted(entries_of(graphs)).examples]
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
