"""Graphs are scored as FACTUAL's evaluator scores them; gold graphs are read as their authors wrote them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sclip.benchmark import graph_quality
from sclip.benchmark.graph_scores import WordNet, facts, phrases, set_match, soft_spice, spice
from support.commands import command

# WordNet 3.0 on the words below: offsets of synsets that two words share, and words that share no synset.
SHARED = {
    "noun": "couch 04256520 sofa 04256520 man 10287213 adult_male 10287213 car 02958343 automobile 02958343 "
    "walk 00283568 walking 00283568 grip 00812526 hold 00812526",
    "adj": "red 00381097 crimson 00381097",
    "verb": "",
    "adv": "",
}
ALONE = {
    "noun": "dog boat dock tie child leaf leave street road a as male adult pet help frisbee knife glass glasses lie 5",
    "adj": "brown next helpful",
    "verb": "lie walk be",
    "adv": "on in",
}
EXCEPTIONS = {
    "noun": "men man\nchildren child\nleaves leaf leave\nknives knife\nis is",
    "verb": "is be",
    "adj": "",
    "adv": "",
}

# Candidate, gold, and what eval_set_match and eval_spice of FactualSceneGraph 0.7.3 return (github.com/zhuang-li/
# FactualSceneGraph, spice_evaluation.py of commit 3f67cc1), with that package's dictionary and without merging; both
# graphs lemmatised as its evaluator does, by NLTK 3.10.4 on WordNet 3.0.
CASES = [
    ("( boats , tie to , dock ) , ( boats , is , 5 )", "( boat , is , 5 ) , ( boat , tie to , dock )", 1, 1.0),
    ("( dog , on , sofa )", "( dog , on , couch )", 0, 1.0),
    ("( dog , next to , sofa )", "( dog , next to , couch )", 0, 0.6667),
    ("( dog , is , red ) , ( dog , is , red )", "( dog , is , crimson )", 0, 1.0),
    ("( couch ) , ( sofa )", "( sofa )", 0, 0.6667),
    ("( dog , is , brown )", "( dog ) , ( brown )", 0, 0.5),
    ("( dog )", "( dog , is , brown ) , ( dog , on , couch )", 0, 0.4),
    ("( men , walking , dog )", "( adult male , walk , dog )", 0, 1.0),
    ("( dog , is , helpful )", "( dog , is , help )", 0, 1.0),
    ("( dog , as , pet )", "( dog , a , pet )", 1, 1.0),
    ("( dog , lie , on , couch )", "( dog , lie on , couch )", 0, 1.0),
    ("( couch , on , couch ) , ( sofa , on , sofa )", "( couch , on , sofa )", 0, 0.8571),
    (
        "( leaves , on , street ) , ( children , in , street )",
        "( leaf , on , road ) , ( child , in , street )", 0, 0.7273,
    ),
    ("( knives , in , glass )", "( knife , in , glasses )", 1, 1.0),
    ("( automobile , on , road )", "( car , on , road ) , ( car , is , red )", 0, 0.8571),
    ("( man , grip , frisbee )", "( man , hold , frisbee )", 0, 1.0),
]  # fmt: skip


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """A folder in the format of WordNet's files (wndb(5WN)), with few words."""
    for number, part in enumerate(EXCEPTIONS):
        words = SHARED[part].split()
        synsets = dict(zip(words[::2], words[1::2], strict=True))
        synsets |= {word: f"{number}{index:07}" for index, word in enumerate(ALONE[part].split())}
        entries = [f"{word} {part[0]} 1 2 @ ~ 1 0 {synset}  \n" for word, synset in sorted(synsets.items())]
        (tmp_path / f"index.{part}").write_text("  1 This software and database\n" + "".join(entries))
        (tmp_path / f"{part}.exc").write_text(EXCEPTIONS[part])
    return tmp_path


def test_scores_equal_those_of_factuals_evaluator(wordnet: Path) -> None:
    words = WordNet.read(wordnet)
    graphs = [(facts(ours, words), facts(gold, words)) for ours, gold, *_ in CASES]
    assert [
        (int(set_match(*pair)), round(spice(*pair, words), 4)) for pair in graphs
    ] == [tuple(scores) for _, _, *scores in CASES]  # fmt: skip
    assert spice(facts("", words), graphs[0][1], words) == set_match(facts("", words), graphs[0][1]) == 0


def test_soft_spice_takes_the_nearest_gold_phrase_of_each_phrase(wordnet: Path) -> None:
    words = WordNet.read(wordnet)
    assert phrases(facts("( dogs , is , red ) , ( dog , tie to , dock )", words)) == [
        "dock", "dog", "dog tie to dock", "red dog",
    ]  # fmt: skip
    candidate, gold = np.float32([[1, 0], [0.6, 0.8]]), np.float32([[0.6, 0.8], [0.8, 0.6], [-1, 0]])
    assert soft_spice(candidate, gold) == pytest.approx((0.8 + 1) / 2)
    assert soft_spice(gold, candidate) == pytest.approx((1 + 0.96 - 0.6) / 3)
    assert soft_spice(candidate[:0], gold) == soft_spice(candidate, gold[:0]) == 0


# Rows in the formats of FACTUAL (random/dev.csv) and DiscoSG-DS (human_anno_train_300.json, shortened).
FACTUAL = """image_id,region_id,caption,scene_graph
1,2,five boats tied to a dock,"( boats , tie to , dock ) , ( boats , is , 5 )"
1,3,a dog on a couch,"( dog , on , sofa )"
"""
DISCOSG = [
    {
        "caption": f"A dog is on a couch. {'It is a nice scene. ' * 20}A man walks on a street.",
        "scene_graph": "( dog , on , couch ) , ( man , walk on , street )",
    }
]


def test_the_command_scores_parsers_on_factual_and_keeps_published_figures_apart(wordnet: Path) -> None:
    gold, out = wordnet / "dev.csv", wordnet / "out.json"
    gold.write_text(FACTUAL)
    arguments = ["scenegraph", "--gold", str(gold), "--wordnet", str(wordnet), "--json", str(out)]
    assert command("benchmark")(*arguments, "--encoder", "scenes-conv:") == 0
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows.keys() == {graph_quality.OURS, graph_quality.PEER, *graph_quality.PUBLISHED}
    figures = rows[graph_quality.OURS]["figures"]
    same, other = figures.pop("Soft-SPICE")
    assert same == pytest.approx(100, abs=1e-3)
    assert 0 < other < 99
    assert figures == {"Set Match": [100, 0], "SPICE": [100, 100]}
    assert rows[graph_quality.OURS]["found"].startswith(
        "Set Match 50.0 (0.0 to 100.0), SPICE 100.0, Soft-SPICE "
    )
    assert bool(rows[graph_quality.PEER]["figures"]) == (importlib.util.find_spec("sng_parser") is not None)
    published = rows["FACTUAL-T5 base"]
    assert (published["peer"], published["found"]) == ("Set Match 81.37, SPICE 93.27", "")


def test_long_captions_of_discosg_are_also_read_sentence_by_sentence(wordnet: Path) -> None:
    gold, out = wordnet / "train.json", wordnet / "out.json"
    gold.write_text(json.dumps(DISCOSG))
    arguments = ["scenegraph", "--gold", str(gold), "--wordnet", str(wordnet), "--json", str(out)]
    assert command("benchmark")(*arguments) == 0
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows.keys() == {graph_quality.OURS, graph_quality.SENTENCES, graph_quality.PEER}
    window, whole = (
        rows[name]["figures"]["SPICE"][0] for name in (graph_quality.OURS, graph_quality.SENTENCES)
    )
    assert window < whole


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "caption,graph\na dog,x\n", "no captions with scene graphs (KeyError: 'scene_graph')"),
        ("a.csv", "caption,scene_graph\n", "no rows"),
        ("a.json", "{", "no captions with scene graphs (JSONDecodeError"),
        ("a.txt", "a dog\n", "must be a .csv"),
    ],
)
def test_a_file_without_gold_graphs_is_refused(
    wordnet: Path, name: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = wordnet / name
    gold.write_text(text)
    assert command("benchmark")("scenegraph", "--gold", str(gold), "--wordnet", str(wordnet)) == 2
    assert capsys.readouterr().err.startswith(f"benchmark: --gold {gold}: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--gold a.csv", "--gold FILE and --wordnet FOLDER go together, without --captions"),
        ("--gold {gold} --wordnet nowhere", "--wordnet nowhere: [Errno 2] No such file or directory"),
    ],
)
def test_scores_without_wordnet_are_refused(
    wordnet: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = wordnet / "dev.csv"
    gold.write_text(FACTUAL)
    assert command("benchmark")("scenegraph", *arguments.format(gold=gold).split()) == 2
    assert capsys.readouterr().err.startswith(f"benchmark: {message}")
