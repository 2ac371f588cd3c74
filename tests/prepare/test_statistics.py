"""A corpus is counted as a run reads it: annotated or parsed, filtered or whole, from shards or a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from sclip.config import Config, ConfigError, DataConfig
from sclip.config.loader import to_tree
from sclip.data import annotation
from sclip.data.schedule import NamedShard
from sclip.data.shards import Sample, ShardError, read_shard
from sclip.negatives import natural
from sclip.prepare.annotate import stamp
from sclip.prepare.statistics import CorpusCounter, corpus_of
from sclip.report import CorpusStatistics
from sclip.scenegraph import Parser
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import record_inputs
from support.annotated_shards import annotate_here, named, write_plain
from support.commands import command
from support.ray_head import Head


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def annotated(plain: list[str], tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> list[str]:
    return annotate_here(plain, tmp_path_factory.mktemp("annotated"), parser)


def counted(shards: list[str], parser: Parser, data: DataConfig | None = None) -> dict[str, object]:
    """Return the sums over the shards, counted in this process."""
    rows = CorpusCounter(data or DataConfig(), stamp(parser), {url: named(url) for url in shards})(
        pa.table({"shard": shards})
    ).to_pylist()
    whole = CorpusStatistics()
    for row in rows:
        whole.merge(CorpusStatistics.from_json(json.loads(row["statistics"])))
    counts = {name: sum(row[name] for row in rows) for name in ("annotated", "rejected", "filtered")}
    return {"statistics": whole.to_json(), "failure": "".join(row["failure"] for row in rows)} | counts


def test_annotated_shards_give_the_same_statistics_as_plain_ones(
    plain: list[str], annotated: list[str], parser: Parser
) -> None:
    parsed, read = counted(plain, parser), counted(annotated, parser)
    assert parsed["statistics"] == read["statistics"]
    assert (parsed["annotated"], read["annotated"]) == (0, 36)
    assert CorpusStatistics.from_json(read["statistics"]).captions == 36


def test_an_annotation_with_another_stamp_or_caption_or_a_malformed_one_is_ignored(
    plain: list[str], annotated: list[str], parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CorpusCounter(DataConfig(), "rules-0", {url: named(url) for url in annotated})(
        pa.table({"shard": annotated})
    ).to_pylist()
    assert [row["annotated"] for row in other] == [0, 0, 0]
    (wrong,) = parser.parse(["nothing of the kind"])
    for record in (annotation.dumps({"graph": wrong.to_json(), "negatives": []}), b"{", b'{"graph": []}'):
        monkeypatch.setattr(
            annotation, "read_stamped", lambda sample, _, stored=record: [stored] * len(sample.captions)
        )
        assert counted(annotated[:1], parser) == counted(plain[:1], parser)


def test_captions_that_a_run_filters_out_are_not_counted(annotated: list[str], parser: Parser) -> None:
    counts = counted(annotated, parser, DataConfig(min_relations=1))
    statistics = CorpusStatistics.from_json(counts["statistics"])
    assert 0 < statistics.captions < 36
    assert statistics.captions + counts["filtered"] == 36
    assert statistics.relations >= statistics.captions


def test_unreadable_samples_are_counted_and_a_missing_shard_is_reported(
    plain: list[str], tmp_path: Path, parser: Parser
) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(Path(plain[0]).read_bytes()[:4000])
    assert counted([str(cut)], parser)["rejected"] == 1
    assert "absent.tar" in counted([str(tmp_path / "absent.tar")], parser)["failure"]


def test_the_folder_of_a_run_stands_for_its_shards_and_its_data_config(
    plain: list[str], tmp_path: Path
) -> None:
    data = DataConfig(shards=(f"{Path(plain[0]).parent}/*.tar",), caption_field="captions", min_objects=2)
    shards = tuple(map(named, plain))
    sources = [dict.fromkeys(shards[:1], 5), dict.fromkeys(shards[1:], 5)]
    record_inputs(RunFolder(tmp_path / "my-run"), to_tree(Config(data=data)), sources)
    corpus = corpus_of([str(tmp_path / "my-run")], DataConfig())
    assert (corpus.title, corpus.shards, corpus.data) == ("my-run", shards, data)
    run = RunFolder(tmp_path / "away")
    record_inputs(run, to_tree(Config()), [{NamedShard("0/a.tar", "s3://key:planted@bucket/a.tar"): 5}])
    message = r"s3://\*\*\*@bucket/a.tar without credentials.*name the shards"
    with pytest.raises(ConfigError, match=message):
        corpus_of([str(run.path)], DataConfig())
    (run.path / "shards.json").write_text("{")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        corpus_of([str(run.path)], DataConfig())
    with pytest.raises(ShardError, match="no such shard"):
        corpus_of([str(tmp_path / "*.tar")], DataConfig())


@pytest.mark.cluster
def test_the_job_reports_a_corpus(
    head: Head, plain: list[str], tmp_path: Path, parser: Parser, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    out, job = tmp_path / "report", command("corpus")
    try:
        arguments = [f"{Path(plain[0]).parent}/*.tar", "--out", out, "--actors", "2", "--actor-cpus", "0.4"]
        assert job(*arguments) == 0
    finally:
        ray.shutdown()
    output = capsys.readouterr().out
    assert "36 captions" in output
    assert f"look at it: {out / 'report.html'}" in output
    report = json.loads((out / "report.json").read_text())
    assert report["captions"] == 36
    samples = [sample for shard in plain for sample in read_shard(shard) if isinstance(sample, Sample)]
    graphs = parser.parse([text for sample in samples for text in sample.captions])
    assert report["with_negative"] == sum(bool(natural(graph)) for graph in graphs)
    assert job(tmp_path / "no.tar") == 2
    assert capsys.readouterr().err.startswith("corpus: ")
