"""Scenes follow from (seed, split, index), differ between training and held-out, and leave blind models at chance."""

import hashlib
import io
import json
import random
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sclip.config import ScenesConfig
from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.prepare.scenes import ScenesPaths, generate
from sclip.prepare.scenes.cases import ARO_LEAST_CASES
from sclip.prepare.scenes.grammar import PHRASES, captions
from sclip.prepare.scenes.picture import render
from sclip.prepare.scenes.scene import (
    FAMILIES,
    RELATIONS,
    Family,
    Thing,
    compose,
    draw_scene,
    pairing,
)
from sclip.scenegraph import Parser

A, B = FAMILIES["a"], FAMILIES["b"]
SPEC = ScenesConfig(train_samples=120, heldout_samples=104, image_size=64)
FORMS = {
    "left": ("at the left of",),
    "right": ("on the right side of",),
    "above": ("above", "over"),
    "below": ("under",),
}
"""How graphs write each relation, after an optional verb."""
ALL_FORMS = tuple(form for forms in FORMS.values() for form in forms)
SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> ScenesPaths:
    return generate(tmp_path_factory.mktemp("scenes"), SPEC, seed=5)


def samples(glob: str) -> list[Sample]:
    items = [item for url in expand([glob]) for item in read_shard(url)]
    assert all(isinstance(item, Sample) for item in items)
    return [item for item in items if isinstance(item, Sample)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_shards_hold_the_requested_number_of_pictures_with_three_captions(paths: ScenesPaths) -> None:
    for glob, count in ((paths.train, 120), (paths.heldout, 104)):
        shard_samples = samples(glob)
        assert len(shard_samples) == count
        for sample in shard_samples:
            assert len(set(sample.captions)) == 3
            assert Image.open(io.BytesIO(sample.image)).size == (64, 64)


def test_the_same_spec_and_seed_give_the_same_bytes_and_another_seed_others(
    paths: ScenesPaths, tmp_path: Path
) -> None:
    again, other = generate(tmp_path, SPEC, seed=5), generate(tmp_path, SPEC, seed=6)
    assert files(again.suite.parent) == files(paths.suite.parent)
    assert [s.captions for s in samples(other.train)] != [s.captions for s in samples(paths.train)]


def test_the_second_family_is_a_part_of_the_first_on_the_same_side_of_its_split(tmp_path: Path) -> None:
    assert (set(B.colours) < set(A.colours), B.shapes, B.backgrounds) == (True, A.shapes, A.backgrounds)
    assert B.held_out == {pairing for pairing in A.held_out if pairing[0] <= set(B.colours)}
    first = generate(tmp_path, ScenesConfig(train_samples=4, heldout_samples=4), seed=1).suite.parent
    second = generate(
        tmp_path, ScenesConfig(family="b", train_samples=4, heldout_samples=4), seed=1
    ).suite.parent
    digests = [
        hashlib.sha256((folder / "relation.json").read_bytes()).hexdigest()[:12] for folder in (first, second)
    ]
    assert (first.name, digests[0]) == ("scenes-056a0e3126c62374", "ca2aff802c0d")
    assert digests[0] != digests[1]


def test_a_longer_training_set_begins_with_the_shorter_one(paths: ScenesPaths, tmp_path: Path) -> None:
    longer = generate(tmp_path, replace(SPEC, train_samples=150), seed=5)
    assert samples(longer.train)[:120] == samples(paths.train)


def test_a_complete_folder_is_reused_and_a_half_written_one_is_rewritten(tmp_path: Path) -> None:
    spec = ScenesConfig(train_samples=4, heldout_samples=2)
    first = generate(tmp_path, spec, seed=1)
    content = files(first.suite.parent)
    marker = first.suite.with_name("marker")
    marker.touch()
    assert generate(tmp_path, spec, seed=1) == first
    assert marker.exists()
    for name in ("scenes.json", "relation.json"):
        first.suite.with_name(name).unlink()
    assert generate(tmp_path, spec, seed=1) == first
    assert files(first.suite.parent) == content
    assert list(tmp_path.iterdir()) == [first.suite.parent]


def test_training_has_every_coloured_shape_and_only_held_out_scenes_have_held_out_pairings() -> None:
    scenes = [draw_scene(random.Random(seed), A, held_out=False) for seed in range(3000)]
    singles = {(p.thing.colour, p.thing.shape) for scene in scenes for p in scene.placed}
    assert len(singles) == len(A.colours) * len(A.shapes)
    shown = {pairing(a.thing, b.thing) for scene in scenes for a, b in combinations(scene.placed, 2)}
    assert not shown & A.held_out
    assert {len([p for p in A.held_out if p[0] == set(pair)]) for pair in combinations(A.colours, 2)} == {
        1,
        2,
    }
    for seed in range(300):
        scene = draw_scene(random.Random(seed), A, held_out=True)
        assert pairing(*(placed.thing for placed in scene.placed)) in A.held_out


@given(SEEDS, st.booleans())
@settings(max_examples=100)
def test_objects_lie_in_the_picture_apart_and_clearly_in_the_stated_relation(
    seed: int, held_out: bool
) -> None:
    scene = draw_scene(random.Random(seed), A, held_out=held_out)
    positions = {placed.thing: placed for placed in scene.placed}
    for placed in scene.placed:
        for coordinate in (placed.x, placed.y):
            assert placed.radius <= coordinate <= 1 - placed.radius
    for one, other in combinations(scene.placed, 2):
        assert max(abs(one.x - other.x), abs(one.y - other.y)) > one.radius + other.radius
    for fact in scene.facts:
        a, b = positions[fact.subject], positions[fact.object]
        along, aside = a.x - b.x, a.y - b.y
        if fact.relation in ("above", "below"):
            along, aside = aside, along
        sign = -1 if fact.relation in ("left", "above") else 1
        assert along * sign >= 0.44
        assert abs(aside) <= 0.13


@given(SEEDS, st.sampled_from(RELATIONS))
@settings(max_examples=30)
def test_the_picture_shows_each_object_at_its_place_in_the_scene(seed: int, relation: str) -> None:
    things = Thing("red", "square", "large"), Thing("blue", "circle", "large")
    scene = compose(random.Random(seed), A, things, relation)
    picture = render(scene, 64)
    for placed, paint in zip(scene.placed, ((214, 32, 38), (32, 78, 214)), strict=True):
        assert picture.getpixel((int(64 * placed.x), int(64 * placed.y))) == paint


@pytest.mark.parametrize("family", [A, B], ids=["a", "b"])
def test_every_caption_is_parsed_into_the_graph_of_its_scene(parser: Parser, family: Family) -> None:
    scenes = [draw_scene(random.Random(seed), family, held_out=True) for seed in range(200)]
    texts = [captions(scene, random.Random(seed)) for seed, scene in enumerate(scenes)]
    graphs = iter(parser.parse([text for group in texts for text in group]))
    num_correct = 0
    for scene, group in zip(scenes, texts, strict=True):
        for text in group:
            triples = next(graphs).triples()
            fact_and_inverse = (scene.facts[0], scene.facts[0].inverse())
            facts = {
                (f.subject.shape, form, f.object.shape)
                for f in fact_and_inverse
                for form in FORMS[f.relation]
            }
            related = [t for t in triples if t[1] != "is" and t[2] != "background"]
            spoken = any(phrase in text.lower() for phrases in PHRASES.values() for phrase in phrases)
            coloured = {(p.thing.colour, p.thing.shape) for p in scene.placed}
            stated = {(h, form, t) for h, word, t in related for form in ALL_FORMS if word.endswith(form)}
            states_a_fact = len(related) == 1 and bool(stated) and stated <= facts
            num_correct += coloured <= {(h, t) for h, word, t in triples if word == "is"} and (
                states_a_fact or not spoken
            )
    assert num_correct == 600


@pytest.mark.parametrize(
    ("kind", "own"),
    [("relation", {"relation_name"}), ("attribute", {"attributes", "obj1_name", "obj2_name"})],
)
def test_evaluation_cases_have_aros_format_and_held_out_pairings_and_leave_blind_models_at_chance(
    paths: ScenesPaths, kind: str, own: set[str]
) -> None:
    """Every caption is true exactly as often as false, and relations are equally frequent."""
    cases = json.loads((paths.suite.parent / f"{kind}.json").read_text())
    assert len(cases) >= SPEC.heldout_samples
    assert Counter(c["true_caption"] for c in cases) == Counter(c["false_caption"] for c in cases)
    common = {"image_id", "image_path", *(f"bbox_{side}" for side in "xywh"), "true_caption", "false_caption"}
    for case in cases:
        true, false = case["true_caption"].split(), case["false_caption"].split()
        assert true != false
        assert sorted(true) == sorted(false)
        named = (frozenset(word for word in true if word in words) for words in (A.colours, A.shapes))
        assert tuple(named) in A.held_out
        assert set(case) == common | own
        with Image.open(paths.suite.parent / "images" / case["image_path"]) as image:
            assert image.size == (case["bbox_w"], case["bbox_h"])
    if kind == "relation":
        relations = Counter(case["relation_name"] for case in cases)
        assert (len(relations), len(set(relations.values()))) == (4, 1)
    else:
        assert min(Counter(tuple(case["attributes"]) for case in cases).values()) >= ARO_LEAST_CASES


def test_the_suite_names_the_evaluation_files_and_the_held_out_shards(paths: ScenesPaths) -> None:
    files = {kind: {"file": f"{kind}.json", "images": "images"} for kind in ("relation", "attribute")}
    shards = "heldout/*.tar"
    assert yaml.safe_load(paths.suite.read_text()) == {
        "relation": {"kind": "vg-relation"} | files["relation"],
        "attribute": {"kind": "vg-attribution"} | files["attribute"],
        "retrieval": {"kind": "shards", "shards": shards},
    }
    assert str(paths.suite.parent / shards) == paths.heldout
