"""Validation finds, before a run, exactly what a run would reject, and reports what the shards hold."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
import ray

from sclip.config import DataConfig
from sclip.data.counts import Record
from sclip.prepare import validate
from sclip.prepare.annotate import stamp
from sclip.prepare.validate import Findings, Validator, kind, reachable
from sclip.report.page import render
from sclip.scenegraph import Parser
from support.annotated_shards import annotate_here, write_plain
from support.commands import command
from support.defective_shards import SIDE, Planted, write
from support.ray_head import Head
from support.tars import tar_bytes

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write(tmp_path_factory.mktemp("defects"))


def findings_in(shards: list[str], **data: Any) -> Findings:
    """Validate shards in this process and return the findings."""
    findings = Findings()
    for row in Validator(DataConfig(**data), 32)(pa.table({"shard": shards})).to_pylist():
        findings.merge(validate._from_json(row["findings"]))
    return findings


def members(shard: str) -> list[tuple[str, bytes]]:
    with tarfile.open(shard) as tar:
        return [(info.name, body.read()) for info in tar if (body := tar.extractfile(info))]


def entries(quarantined: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((Path(entry["shard"]).name, entry["key"]) for entry in quarantined)


def test_validation_finds_the_planted_defects_and_nothing_else(planted: Planted) -> None:
    findings = findings_in(planted.shards)
    assert entries(findings.quarantined) == Counter((name, key) for name, key, _ in planted.defects)
    assert findings.samples == sum(map(len, planted.good.values()))
    assert (findings.shards, findings.unreachable) == (len(planted.good), [])
    assert findings.share == len(planted.defects) / (len(planted.defects) + findings.samples)
    assert findings.pixels() == {name: [SIDE, SIDE, SIDE] for name in ("width", "height")}
    reasons = findings.reasons()
    counts = [count for _, count, _ in reasons]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == len(planted.defects) > len(reasons)
    assert all(kind(example["reason"]) == name for name, _, example in reasons)
    assert not planted.marker.exists()


def test_recorded_samples_that_are_absent_are_missing_and_a_bad_shard_counts_as_no_sample(
    tmp_path: Path,
) -> None:
    names = write_plain(tmp_path)
    pointer = tmp_path / "pointer.tar"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    findings = findings_in([*names, str(pointer)])
    assert not findings.is_clean
    counts = {Path(shard).name: samples for shard, samples in findings.groups.items()}
    tar_record = Record("0_stats.json", counts[Path(names[0]).name] + 1)
    findings.compare({str(pointer): Record("index.json", 9), names[0]: tar_record})
    assert [(entry["recorded"] - entry["samples"]) for entry in findings.wrong] == [1, 9]
    assert findings.missing == 9  # the stats of a complete tar are wrong
    assert findings.share == (1 + 9) / (findings.samples + 1 + 9)
    notes = "\n".join(findings.notes(""))
    assert "0 samples are set aside and 1 shards cannot be read to their end" in notes
    assert f"{pointer}: not a tar: a Git LFS pointer; git lfs pull" in notes
    assert f"{pointer}: index.json records 9 samples, there are 0" in notes
    (tmp_path / "empty.tar").write_bytes(tar_bytes([("LICENSE", b"MIT")]))
    findings = findings_in([*names, f"{tmp_path}/empty.tar"])
    assert not findings.is_clean
    assert f"1 shards hold no sample (first {tmp_path}/empty.tar)" in findings.notes("")
    findings = findings_in(names)
    absent = str(tmp_path / "gone.tar")
    findings.compare({absent: Record("gone_stats.json", 7)}, [absent])
    assert (findings.is_clean, findings.missing, findings.unreachable) == (False, 7, [])
    notes = "\n".join(findings.notes(""))
    assert f"1 recorded shards are missing (first {absent})" in notes
    assert f"{absent}: gone_stats.json records 7 samples, there are 0" in notes


def test_unread_images_are_reported_and_make_the_findings_unclean(tmp_path: Path) -> None:
    names = write_plain(tmp_path)
    assert findings_in(names).is_clean
    more = tmp_path / "more.tar"
    more.write_bytes(tar_bytes([*members(names[0]), ("s0004.large.jpg", b"i")]))
    findings = findings_in([str(more), names[1]])
    assert (findings.unread, findings.quarantined) == ({".large.jpg": 1}, [])
    assert not findings.is_clean
    assert "not read    1 images or texts" in "\n".join(findings.notes(""))


def test_samples_whose_false_captions_cannot_be_read_are_named_and_trained_on(tmp_path: Path) -> None:
    (shard, _, _) = write_plain(tmp_path)
    bad = tmp_path / "bad.tar"
    record = json.dumps({"captions": ["a dog", "a cat"], "neg": "a god"}).encode()
    bad.write_bytes(
        tar_bytes([(name, record if name == "s0001.json" else body) for name, body in members(shard)])
    )
    findings = findings_in([str(bad)], negatives_field="neg")
    assert (findings.samples, findings.quarantined, findings.is_clean) == (5, [], False)
    assert [(entry["key"], entry["index"]) for entry in findings.malformed] == [("s0001", 1)]
    notes = findings.notes("")
    assert "samples without neg (4), samples with a neg that cannot be read (1)" in next(
        line for line in notes if line.startswith("foreign ")
    )
    assert any(line.startswith(f"{bad}: s0001: neg: one text for 2 captions") for line in notes)


def test_a_kind_of_reason_has_no_details_of_a_single_sample() -> None:
    for reason, name in (
        ("9000 x 9000 pixels, more than 64000000", "N x N pixels, more than N"),
        ("broken tar, last key '000123': unexpected end", "broken tar, last key '…': unexpected end"),
        ("no caption in .json captions, .json caption or .txt",) * 2,
    ):
        assert kind(reason) == name


def test_a_shard_that_cannot_be_reached_is_named_and_the_others_are_validated(tmp_path: Path) -> None:
    for name in ("000", "002", "other"):
        (tmp_path / f"{name}.tar").touch()
    shards, failures = reachable([f"{tmp_path}/{name}.tar" for name in ("{000..002}", "o*", "none*")])
    assert [Path(shard).stem for shard in shards] == ["000", "002", "other"]
    names = [failure.partition(": ")[0] for failure in failures]
    assert names == [f"{tmp_path}/001.tar", f"{tmp_path}/none*.tar"]
    plain = write_plain(tmp_path / "plain")
    findings = findings_in([plain[0], str(tmp_path / "gone.tar"), plain[1]])  # deleted after it was listed
    (failure,) = findings.unreachable
    assert "gone.tar" in failure
    assert (findings.shards, findings.samples, findings.quarantined) == (3, 10, [])


def test_a_password_in_the_name_of_a_shard_is_not_reported() -> None:
    fsspec.filesystem("memory").pipe("/validate/empty.tar", b"")
    findings = findings_in(["memory://user:secret@/validate/empty.tar"])
    assert findings.quarantined or findings.unreachable
    assert "secret" not in json.dumps([findings.quarantined, findings.unreachable])


def test_notes_say_how_many_samples_have_the_stamp_of_this_installation(
    tmp_path: Path, parser: Parser
) -> None:
    plain = write_plain(tmp_path / "plain")
    own = stamp(parser)
    annotated = annotate_here(plain, tmp_path / "annotated", parser)
    assert findings_in(annotated).stamps == {own: 12}
    assert "12 samples are annotated under this installation's stamp" in findings_in(annotated).notes(own)
    other = findings_in([*annotated, *plain]).notes("rules-0")
    assert other[-2:] == [
        f"12 samples are annotated under another stamp ({own}): annotate them again",
        "12 samples are not annotated: a run parses their captions",
    ]


def test_least_median_and_largest_sizes_are_computed_from_counts() -> None:
    findings = Findings(widths={100: 2, 640: 3, 7: 1}, heights={8: 1, 9: 1})
    assert findings.pixels() == {"width": [7, 100, 640], "height": [8, 8, 9]}
    assert Findings().pixels() == {}


def test_names_of_shards_and_samples_are_escaped_on_the_page() -> None:
    evil = {"shard": "<b>.tar", "key": "<script>", "index": 0, "reason": "<img src=x>"}
    findings = Findings(quarantined=[evil], unreachable=["<i>.tar"])
    reasons = [
        {"reason": name, "count": count, "example": example} for name, count, example in findings.reasons()
    ]
    page = render("validate.html", title="x", notes=[], found=findings, reasons=reasons)
    assert not any(sign in page for sign in ("<script", "<img", "<i>.tar", "<b>.tar"))
    assert "&lt;script&gt;" in page


@pytest.mark.cluster
def test_the_job_reports_every_defect_and_sets_its_exit_status(
    head: Head, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", head.address)

    def job(*arguments: object) -> int:
        return command("validate")(*arguments, "--actors=2", "--actor-cpus=0.4", "--image-size=32")

    out = tmp_path / "report"
    try:
        assert job(f"{planted.folder}/*.tar", f"--out={out}") == 1
        output = capsys.readouterr().out
        assert job(planted.folder / "nowhere.tar", planted.folder / "good.tar") == 2
        missing = capsys.readouterr()
        assert job(planted.folder / "good.tar") == 0
    finally:
        ray.shutdown()
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert entries(lines) == Counter((name, key) for name, key, _ in planted.defects)
    assert [line["shard"] for line in lines] == sorted(line["shard"] for line in lines)
    report = json.loads((out / "report.json").read_text())
    assert report["samples"] == sum(map(len, planted.good.values()))
    assert report["quarantined"] == sum(reason["count"] for reason in report["reasons"]) == len(lines)
    assert f"look at it: {out / 'report.html'}" in output
    assert "N frames: it is unknown which one" in output
    assert "N frames" in (out / "report.html").read_text()
    assert not planted.marker.exists()
    assert "nowhere.tar: no such shard" in missing.err
    assert f"{len(planted.good['good.tar'])} samples of 1 shards are trained on" in missing.out
