"""`sclip inspect` shows what a training step receives of a sample, or why it receives nothing."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sclip.config import Config, DataConfig, KEEConfig, LossConfig, ModelConfig, TrainConfig
from sclip.config.loader import to_tree
from sclip.data import columns as col
from sclip.data.counts import count_samples
from sclip.data.encode import Encoder
from sclip.data.order import Part, Round
from sclip.data.patterns import find_shards
from sclip.data.reader import OpenedVisit, ReadSettings, read_round
from sclip.model import Tokenizer, image_size
from sclip.prepare.annotate import usable_stamp
from sclip.report import visit as report
from sclip.run.inspection import Run, inspect_sample, of_run
from sclip.scenegraph import Parser
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.annotated_shards import LEAST, RICH, annotate_here, jpeg, write_plain
from support.commands import command
from support.storage_server import Storage, serving
from support.tars import tar_bytes

EPOCHS = 3
job = command("inspect")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def annotated(plain: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return annotate_here(plain, tmp_path_factory.mktemp("annotated"), Parser())


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shard with an undecodable image, a sample without an image, and a key that occurs twice."""
    path = tmp_path_factory.mktemp("broken") / "broken.tar"
    members = {
        "no-picture.jpg": b"not a jpeg", "no-picture.txt": RICH[0].encode(), "no-image.txt": RICH[1].encode(),
        "twice.jpg": jpeg(1), "twice.txt": RICH[2].encode(), "x.jpg": jpeg(2), "x.txt": b"a dog on a red mat",
        "./twice.jpg": jpeg(3), "./twice.txt": b"a cat",
    }  # fmt: skip
    path.write_bytes(tar_bytes(members.items()))
    return str(path)


def config(loss: LossConfig | None = None, **data: Any) -> Config:
    return Config(
        model=ModelConfig(name="scenes-conv", kee=KEEConfig(triples=2, phrase_tokens=2)),
        data=DataConfig(crop_scale=(0.3, 0.9), **data),
        loss=loss or LossConfig(negatives_per_caption=2),
        train=TrainConfig(epochs=EPOCHS),
    )


def trained_on(run_config: Config, shards: list[str], url: str, epoch: int) -> dict[str, dict[str, Any]]:
    """Return what the stream yields from a shard in one epoch: the columns of each sample, by key."""
    reading = ReadSettings(run_config, usable_stamp(run_config.data, shards))
    (shard,) = (shard for shard in find_shards(run_config.data.shards) if shard.url == url)
    encoder = Encoder(run_config, image_size(run_config.model.name))
    columns_by_key: dict[str, dict[str, Any]] = {}
    samples = count_samples([url]).samples[url]
    visits = {0: OpenedVisit(shard, epoch, samples, samples)}
    whole = Round(0, ((Part(0, 0, samples),),))
    for table in read_round(reading, whole, whole.share(0, 1), visits):
        rows = {row[col.PLACE]: row for row in table.to_pylist() if row[col.STATUS] == col.SAMPLE}
        columns = encoder(table)
        for index, place in enumerate(columns[col.PLACE].tolist()):
            if place != col.NO_SAMPLE:
                values = {name: values[index] for name, values in columns.items()}
                columns_by_key[rows[place][col.SAMPLE_KEY]] = values | {col.CAPTION: rows[place][col.CAPTION]}
    return columns_by_key


def ids_of(encoded: report.Encoded) -> tuple[list[int], list[Any]]:
    return [t.id for t in encoded.tokens], [[[t.id for t in p] for p in triple] for triple in encoded.triples]


def columns_of(text: Any, triples: Any) -> tuple[list[int], list[Any]]:
    kept = [[[i for i in phrase if i >= 0] for phrase in triple] for triple in triples.tolist()]
    return text.tolist(), [triple for triple in kept if any(triple)]


@pytest.mark.parametrize(
    ("shards", "loss"),
    [("plain", "semantic"), ("annotated", "shuffle")],
)
def test_the_shown_sample_equals_what_the_stream_yields(
    shards: str, loss: Any, request: pytest.FixtureRequest
) -> None:
    urls = request.getfixturevalue(shards)
    further = float(shards == "plain")
    run_config = config(
        LossConfig(negatives=loss, negatives_per_caption=2, units=further, positives=further),
        shards=tuple(urls),
    )
    columns_by_key = trained_on(run_config, urls, urls[1], 1)
    assert len(columns_by_key) == 5
    tokenizer = Tokenizer(run_config.model)
    for key in sorted(columns_by_key)[:2]:
        row, seen = columns_by_key[key], inspect_sample(Run(run_config), urls[1], key, 1).seen
        assert seen is not None
        assert seen.graph.caption == row[col.CAPTION]
        assert ids_of(seen.encoded) == columns_of(row[col.TEXT], row[col.TRIPLES])
        assert [slot.has_negative for slot in seen.slots] == row[col.HAS_NEGATIVE].tolist()
        assert [slot.negative is not None for slot in seen.slots] == row[col.HAS_NEGATIVE].tolist()
        for number, slot in enumerate(seen.slots):
            expected = columns_of(row[col.NEGATIVE_TEXT][number], row[col.NEGATIVE_TRIPLES][number])
            assert ids_of(slot.encoded) == expected
            if slot.negative:
                assert tokenizer.text([slot.negative.caption])[0].tolist() == expected[0]
        assert len(seen.units) == (2 if further and row[col.HAS_UNIT] else 0)
        for number, (name, encoded) in enumerate(seen.units):
            expected = columns_of(row[col.UNIT_TEXT][number], row[col.UNIT_TRIPLES][number])
            assert ids_of(encoded) == expected
            assert name.startswith(("unit: ", "foil: ")[number])
        assert len(seen.positives) == int(further and row[col.HAS_POSITIVE])
        for name, encoded in seen.positives:
            assert ids_of(encoded) == columns_of(row[col.POSITIVE_TEXT][0], row[col.POSITIVE_TRIPLES][0])
            assert name.startswith("positive (")
        crop = np.asarray(Image.open(io.BytesIO(seen.crop.content))).transpose(2, 0, 1)
        np.testing.assert_array_equal(crop, row[col.IMAGE])
    has = (col.HAS_NEGATIVE, *((col.HAS_UNIT, col.HAS_POSITIVE) if further else ()))
    assert all(any(row[name].any() for row in columns_by_key.values()) for name in has)


def test_a_filtered_sample_tells_what_its_captions_lack(annotated: list[str]) -> None:
    run = Run(config(shards=tuple(annotated), **LEAST))
    visit = inspect_sample(run, annotated[0], "s0003", 0)
    assert visit.seen is None
    assert visit.left_out == (
        "none of its captions passes the filter: data.min_objects=2, data.min_attributes=1, data.min_relations=1"
    )
    assert [(choice.caption, choice.note) for choice in visit.choices if choice.caption == "a dog"] == [
        ("a dog", "1 objects, 0 attributes, 0 relations: left out")
    ]
    kept = inspect_sample(run, annotated[0], "s0000", 0)
    assert kept.seen
    assert not any(choice.drawn and choice.note.endswith("left out") for choice in kept.choices)


def test_the_first_sample_of_a_repeated_key_is_shown_and_the_second_is_mentioned(
    broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(broken, "twice", 0, "loss.negatives=none", "run.seed=7") == 0
    output = capsys.readouterr().out
    assert "a run of this config, seed 7" in output
    assert "has_negative=false" in output
    assert RICH[2] in output
    assert "sample 4 has the same key: its key occurs earlier in the shard; members of a sample" in output


@pytest.mark.parametrize(
    ("key", "reason"), [("no-picture", "not a readable image: "), ("no-image", "no image: it has .txt")]
)
def test_a_quarantined_sample_is_shown_with_the_reason(
    key: str, reason: str, broken: str, tmp_path: Path
) -> None:
    assert job(broken, key, 0, "--html", tmp_path / "page.html") == 0
    visit = inspect_sample(Run(config()), broken, key, 0)
    assert (visit.seen, visit.picture) == (None, None)
    assert visit.left_out.startswith(reason)
    assert "not trained on" in (tmp_path / "page.html").read_text()


# Inspection of a run


def begun(folder: Path, run_config: Config, *sources: list[str]) -> Run:
    """Record a run as its start does, and return the run as `inspect` reads it."""
    counts = count_samples([url for urls in sources for url in urls]).samples
    named = {shard.url: shard for shard in find_shards(run_config.data.shards)}
    counted = [{named[url]: counts[url] for url in urls} for urls in sources]
    record_inputs(RunFolder(folder / "runs" / "mine"), to_tree(run_config), counted)
    return of_run("mine", str(folder))


def test_a_shard_of_the_run_is_recognized_by_any_path_and_a_foreign_shard_is_noted(
    plain: list[str], annotated: list[str], tmp_path: Path
) -> None:
    run = begun(tmp_path, config(shards=(f"{Path(plain[1]).parent}/*.tar",)), plain)
    assert [[shard.url for shard in source] for source in run.sources] == [plain]
    assert of_run(str(tmp_path / "runs" / "mine"), "/nowhere") == run
    path = Path(plain[0])
    other_way = f"{path.parent}/../{path.parent.name}/{path.name}"
    assert inspect_sample(run, other_way, "s0000", 0).notes == []
    assert inspect_sample(run, annotated[0], "s0000", 0).notes == [
        "the run does not read this shard; this is what it would see"
    ]
    moved = tmp_path / Path(plain[1]).name  # known by its name, so shown as the run drew it
    moved.write_bytes(Path(plain[1]).read_bytes())
    original, copied = (inspect_sample(run, str(url), "s0007", 1) for url in (plain[1], moved))
    assert ("identity", f"0/{moved.name}/s0007") in copied.facts
    assert copied.seen == original.seen
    files = {f"/{Path(url).name}": Path(url).read_bytes() for url in plain}
    with serving(
        Storage(files, user="name:planted")
    ) as server:  # the run records its URIs without credentials
        urls = [f"http://name:planted@{server.host}{name}" for name in files]
        run = begun(tmp_path / "remote", config(shards=tuple(urls)), urls)
        assert "planted" not in str(run)
        assert inspect_sample(run, urls[1], "s0007", 1).notes == []


# Output of the command


def test_the_job_shows_a_sample_of_a_run_and_writes_its_page(
    annotated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path, config(shards=tuple(annotated)), annotated)
    page = tmp_path / "page.html"
    assert job(annotated[0], "s0001", 2, "--run", "mine", "--storage", tmp_path, "--html", page) == 0
    output = capsys.readouterr().out
    for line in (
        "drawn by  run mine, seed 0",
        "epoch     2, from 0",
        "graph     from the annotation of the shard",
    ):
        assert line in output
    assert re.search(r"caption: \d+ of 24 tokens, \d+ padding\n  49406 <start_of_text>  320 a", output)
    assert output.endswith(f"look at it: {page}\n")
    assert page.is_file()


def test_an_impossible_request_ends_with_status_2_and_one_line(
    plain: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, storage = plain[0], ("--storage", tmp_path)
    for arguments, message in (
        ((shard, "s00001", 0), "000000.tar: no sample 's00001'; it holds 5 samples, the nearest are s000"),
        ((shard, "s0000", 4, "train.epochs=4"), "in epochs 0 to 3, train.epochs=4"),
        ((shard, "s0000", "--", -1), "epoch -1"),
        ((f"{Path(shard).parent}/*.tar", "s0000", 0), "3 shards, the first is"),
        ((tmp_path / "absent.tar", "s0000", 0), "no such shard"),
        ((shard, "s0000", 0, "--run", "absent", *storage), "--run absent: neither the folder of a run nor"),
        ((shard, "s0000", 0, "--html", tmp_path / "absent" / "page.html"), "page.html"),
        ((shard, "s0000", 0, "--run", "mine", "run.seed=1"), "leave out --config and KEY=VALUE, or --run"),
    ):
        assert job(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("inspect: ")
        assert message in line
