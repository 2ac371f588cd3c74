"""Annotation keeps every byte of the sources and writes each shard once, despite kills, bad data and bad usage."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from sclip.data import annotation
from sclip.data.annotation import read_record
from sclip.data.names import ANNOTATION_SUFFIX
from sclip.data.patterns import expand
from sclip.data.shards import Sample, read_shard
from sclip.launch import cluster
from sclip.negatives import natural, sound
from sclip.prepare.actor_pool import ActorPool
from sclip.prepare.annotate import Annotated, annotate, stamp
from sclip.prepare.writing import PackError
from sclip.scenegraph import Parser
from support.annotated_shards import annotate_here, jpeg, write_plain
from support.commands import command
from support.paths import ROOT
from support.processes import environment
from support.ray_head import Head
from support.tars import tar_bytes


@pytest.fixture(scope="module")
def job() -> Callable[..., int]:
    return command("annotate")


def members(shard: Path) -> dict[str, bytes]:
    """Return the members of a tar in their order."""
    with tarfile.open(shard) as tar:
        return {m.name: body.read() for m in tar if (body := tar.extractfile(m)) is not None}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def samples(shard: str) -> list[Sample]:
    return [item for item in read_shard(shard) if isinstance(item, Sample)]


# What is written


def test_a_shard_keeps_its_samples_byte_for_byte_and_gains_graphs_and_negatives(
    tmp_path: Path, parser: Parser
) -> None:
    plain = write_plain(tmp_path / "plain")
    for before, after in zip(plain, annotate_here(plain, tmp_path / "out", parser), strict=True):
        assert Path(before).name == Path(after).name
        new = members(Path(after))
        unchanged = {name: body for name, body in new.items() if not name.endswith(ANNOTATION_SUFFIX)}
        assert unchanged == members(Path(before))
        assert list(dict.fromkeys(name.partition(".")[0] for name in new)) == [s.key for s in samples(before)]
        for sample in samples(after):
            records = annotation.read_stamped(sample, stamp(parser))
            for caption, record in zip(sample.captions, records, strict=True):
                (graph,) = parser.parse([caption])
                stored_graph, negatives = read_record(record, caption)
                (sound_ones,) = sound([(graph, natural(graph))], parser.shapes)
                assert stored_graph == graph
                assert [negative.to_json() for negative in negatives] == [n.to_json() for n in sound_ones]


def test_members_of_foreign_shards_are_kept_and_an_older_annotation_is_replaced(
    tmp_path: Path, parser: Parser
) -> None:
    record = b'{ "caption" : "a dog" }'
    body = {"a.PNG": b"i", "a.json": record, "a.txt": b"a cat\n", "a.graph.json.gz": b"old"}
    (tmp_path / "x.tar.gz").write_bytes(tar_bytes(body.items(), "w:gz"))
    (shard,) = annotate_here([str(tmp_path / "x.tar.gz")], tmp_path / "out", parser)
    assert Path(shard).name == "x.tar"
    annotated = members(Path(shard))
    assert annotation.unpack(annotated.pop("a.graph.json.gz"))[0] == stamp(parser)
    assert annotated == {"a.png": b"i", "a.json": record, "a.txt": b"a cat\n"}


def test_foreign_graphs_and_members_that_the_config_names_are_kept(tmp_path: Path, parser: Parser) -> None:
    (graph,) = parser.parse(["a red cup is left of a blue tray"])
    fewer = replace(graph, attributes=graph.attributes[:1])
    record = json.dumps({"captions": ["a dog", graph.caption], "g": fewer.to_json()}).encode()
    body = {"a.jpg": b"i", "a.json": record, "a.neg_caption": b"a god\nno tray\n"}
    (tmp_path / "x.tar").write_bytes(tar_bytes(body.items()))
    keys = {"graphs_field": "g", "negatives_field": ".neg_caption"}
    (shard,) = annotate_here([str(tmp_path / "x.tar")], tmp_path / "out", parser, **keys)
    assert members(Path(shard)).items() >= body.items()
    (sample,) = samples(shard)
    dog_graph, cup_graph = (
        read_record(stored, caption)[0]
        for stored, caption in zip(annotation.read(sample)[1], sample.captions, strict=True)
    )
    assert (dog_graph, cup_graph) == (parser.parse(["a dog"])[0], fewer)


def test_an_index_a_report_and_the_rejected_samples_are_written_beside_the_shards(
    tmp_path: Path, parser: Parser
) -> None:
    plain = write_plain(tmp_path / "plain")
    with tarfile.open(plain[0], "a") as tar:
        tar.addfile(tarfile.TarInfo("bad.jpg"), io.BytesIO())
    (tmp_path / "plain" / "broken.tar").write_bytes(b"this is no tar")
    out = tmp_path / "out"
    annotate_here(expand([f"{tmp_path}/plain/*.tar"]), out, parser)
    assert not (out / "broken.tar").exists()
    index = json.loads((out / "index.json").read_text())
    assert (index["format"], index["samples"], len(index["shards"])) == (1, 12, 3)
    rejections = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    places = [(Path(entry["shard"]).name, entry["key"]) for entry in rejections if entry["reason"]]
    assert places == [("000000.tar", "bad"), ("broken.tar", "")]
    assert json.loads((out / "report.json").read_text())["captions"] == 36
    assert (out / "report.html").is_file()


# Bad usage, which is refused without a cluster


def test_bad_usage_is_refused_in_one_line_with_status_2(
    job: Callable[..., int], tmp_path: Path, parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    write_plain(plain)
    write_plain(tmp_path / "same")
    annotate_here(expand([f"{plain}/*.tar"]), tmp_path / "out", parser)
    annotate_here(expand([f"{plain}/*.tar"]), tmp_path / "alt", parser, caption_field="captions")
    annotate_here(expand([f"{plain}/*.tar"]), tmp_path / "old", parser)
    sidecar = tmp_path / "old" / ".annotate" / "000001.tar.json"
    sidecar.write_text(sidecar.read_text().replace(stamp(parser), "rules-0"))
    for name in ("file", "x.parquet"):
        (tmp_path / name).write_text("in the way")
    out = tmp_path / "out"
    tars = plain / "*.tar"
    cases: list[tuple[list[object], str]] = [
        ([plain / "none.tar", out], "no such shard"),
        ([tars], "Missing argument 'SHARDS'"),
        ([tars, "s3://bucket/out"], "a folder that every node reaches, not a URI"),
        ([tars, out, "--actor-cpus", "0"], "a number above 0"),
        ([tars, tmp_path / "same" / "*.tar", out], "both would become 000000.tar"),
        ([tmp_path / "x.parquet", out], "Parquet cannot be annotated; pack it into tars first: sclip pack"),
        ([tars, plain, "--overwrite"], "holds the source"),
        ([tars, tmp_path / "same", "--overwrite"], "which sclip annotate did not write"),
        ([plain / "000000.tar", out], "holds 000001.tar, from none of these sources"),
        ([tmp_path / "same" / "*.tar", out], "annotated with source"),
        ([tars, tmp_path / "alt"], "annotated with caption_field 'captions', not ''"),
        ([tars, out, "--data", "key_ends_at=last_dot"], "key_ends_at 'first_dot', not 'last_dot'"),
        ([tars, out, "--data", "shards=x.tar"], "with a key of caption_field, image_suffixes, text_su"),
        ([f"{plain}/0.tar::{plain}/1.tar", out], f'name them in a list: ["{plain}/0.tar", "{plain}/1.tar"]'),
        ([tars, tmp_path / "file"], "file"),
        ([tars, out, "--spacy-model", "xx_none"], "is not installed"),
        ([tars, tmp_path / "old"], f"/old/000001.tar: annotated with stamp 'rules-0', not '{stamp(parser)}'; choose"),
    ]  # fmt: skip
    before = contents(tmp_path)
    for arguments, message in cases:
        assert job(*arguments) == 2, arguments
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert contents(tmp_path) == before


# On a cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve shards: enough work to kill a job in the middle."""
    folder = tmp_path_factory.mktemp("corpus")
    write_plain(folder, samples=240, per_shard=20)
    return folder


def start(head: Head, corpus: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/annotate.py", f"{corpus}/*.tar", str(out), "--actor-cpus", "0.5", *more]
    env = environment(RAY_ADDRESS=head.address)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=env, **pipes)


@pytest.mark.cluster
def test_a_job_killed_and_started_again_writes_no_shard_twice_and_ends_as_if_undisturbed(
    head: Head, corpus: Path, tmp_path: Path, parser: Parser
) -> None:
    out = tmp_path / "out"
    killed = start(head, corpus, out, "--actors", "1")
    deadline = time.monotonic() + 60
    while len(finished := list(out.glob(".annotate/*.tar.json"))) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    written = {path.name: path.stat() for path in (out / p.stem for p in finished)}
    assert len(written) < 12
    assert not (out / "index.json").exists()

    again = start(head, corpus, out)
    output, error = again.communicate()
    assert again.returncode == 0, error
    assert "240 samples in 12 shards; train on them: data.shards=" in output
    lines = [line for line in output.splitlines() if ".tar: 20 samples" in line]
    assert 0 < len(lines) <= 12 - len(written)
    for name, before in written.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    undisturbed = tmp_path / "undisturbed" / "out"
    annotate_here(expand([f"{corpus}/*.tar"]), undisturbed, parser)
    assert contents(out) == contents(undisturbed)


@pytest.mark.cluster
def test_only_an_unreadable_shard_is_left_out_and_overwrite_redoes_shards_of_another_stamp(
    head: Head, tmp_path: Path, parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    sources = write_plain(tmp_path / "plain")
    hidden = Path(sources[1]).rename(tmp_path / "hidden")
    out, reports = tmp_path / "out", []

    def run(overwrite: bool = False) -> list[Annotated]:
        reports.clear()
        pool, cpus = ActorPool(cpus=0.5), lambda: cluster.connect().cpus
        annotate(sources, out, cpus, pool, on_shard=reports.append, overwrite=overwrite)
        return sorted(reports, key=lambda shard: shard.name)

    try:
        with pytest.raises(
            PackError, match=r"000001\.tar.*1 of 3 shards are not annotated.*run the same command again"
        ):
            run()
        assert sorted(shard.name for shard in reports if not shard.failure) == ["000000.tar", "000002.tar"]
        assert not (out / "index.json").exists()
        hidden.rename(sources[1])
        assert run() == [Annotated("000001.tar", 5, (out / "000001.tar").stat().st_size)]
        assert run() == []
        expected = contents(out)
        sidecar = out / ".annotate" / "000002.tar.json"
        sidecar.write_text(sidecar.read_text().replace(stamp(parser), "rules-0"))
        (out / "000002.tar").write_bytes(jpeg(0).ljust((out / "000002.tar").stat().st_size))
        assert [shard.name for shard in run(overwrite=True)] == ["000002.tar"]
        assert contents(out) == expected
    finally:
        ray.shutdown()
