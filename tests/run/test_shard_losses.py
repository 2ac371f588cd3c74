"""Lost or partly lost shards are reported at the start and the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sclip.config import ConfigError
from sclip.config.loader import load
from sclip.run.resolve import TrainingData, read_data
from sclip.run.shard_losses import Losses, closing_lines
from sclip.train.run_folder import RunFolder
from support.tars import pair, tar_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def tar_of(samples: int) -> bytes:
    return tar_bytes([member for number in range(samples) for member in pair(f"{number:03d}")])


def stats(path: Path, samples: int) -> None:
    path.with_name(f"{path.stem}_stats.json").write_text(json.dumps({"successes": samples}))


def index(folder: Path, samples: int) -> None:
    entries = [{"name": path.name, "samples": samples} for path in sorted(folder.glob("*.tar"))]
    (folder / "index.json").write_text(json.dumps({"shards": entries}))


def read(folder: Path, *overrides: str) -> TrainingData:
    return read_data(load([f"data.shards={folder}/*.tar", *overrides]))


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(folder, *overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_field_that_no_first_sample_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(
        tar_bytes([*pair("000"), *pair("001"), ("001.json", b'{"neg": ["a cat"]}')])
    )
    assert read(tmp_path, "data.negatives_field=neg", "train.epochs=3").samples == 6
    message = refused(tmp_path, "data.negatives_field=negs")
    assert message.startswith("data.negatives_field='negs': none of the first 2 samples has this field ")


def test_one_good_tar_among_nine_pointers_is_refused_unless_a_key_allows_it(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(POINTER)
    (tmp_path / "9.tar").write_bytes(tar_of(12))
    message = refused(tmp_path)
    assert (
        f"9 of 10 shards cannot be read: 9 x a Git LFS pointer, for example {tmp_path}/0.tar (git lfs pull)"
        in message
    )
    assert refused(tmp_path, "data.max_unreadable_shards=8") == message
    enough = "data.max_unreadable_shards=9"
    assert enough in message
    assert len(read(tmp_path, enough).losses.unreadable) == 9
    index(tmp_path, 12)  # now it is known how many samples are lost
    missing = "108 of 120 recorded samples are missing, above data.max_quarantined=0.1, in 9 shards"
    assert missing in refused(tmp_path, enough)
    assert read(tmp_path, enough, "data.max_quarantined=0.9").losses.unreadable_samples == 108
    (tmp_path / "9.tar").unlink()
    assert "9 of 9 shards cannot be read" in refused(tmp_path, enough)


def test_a_broken_or_empty_tar_is_compared_with_its_recorded_count(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_of(20) + bytes(400_000))
    (tmp_path / "1.tar").write_bytes(tar_of(60))
    assert read(tmp_path).expected == ((-1, 60),)
    stats(tmp_path / "0.tar", 60)
    message = refused(tmp_path)
    assert "40 of 120 recorded samples are missing, above data.max_quarantined=0.1, in 1" in message
    assert f"{tmp_path}/0.tar holds 20 of 60 in 0_stats.json (broken tar, last key '019': its last" in message
    (tmp_path / "0.tar").write_bytes(tar_of(0))
    assert "a tar without samples, although samples of it are recorded" in refused(tmp_path)
    (tmp_path / "0.tar").write_bytes(tar_of(70))  # more than recorded
    assert read(tmp_path).expected == ((70, 60),)


def test_an_index_that_promises_more_counts_against_the_threshold(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_of(54))
    (tmp_path / "1.tar").write_bytes(tar_of(54))
    index(tmp_path, 60)
    assert read(tmp_path).expected == ((60, 60),)
    index(tmp_path, 61)
    assert "holds 54 of 61 in index.json (the tar is complete)" in refused(tmp_path)


@pytest.mark.parametrize("members", [[], [("LICENSE", b"MIT")]])
def test_shards_without_a_sample_are_reported_if_others_have_samples(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    (tmp_path / "0.tar").write_bytes(tar_of(9))
    for name in ("1.tar", "2.tar"):
        (tmp_path / name).write_bytes(tar_bytes(members))
    assert read(tmp_path).losses.lines() == [f"empty       2 shards hold no sample (first {tmp_path}/1.tar)"]


@pytest.mark.parametrize("recorded", ["index.json", "2_stats.json"])
def test_an_absent_shard_is_missed_if_a_pattern_would_match_it(tmp_path: Path, recorded: str) -> None:
    for name, samples in (("0.tar", 60), ("1.tar", 60), ("2.tar", 13)):
        (tmp_path / name).write_bytes(tar_of(samples))
    if recorded == "index.json":
        entries = [{"name": f"{n}.tar", "samples": samples} for n, samples in enumerate((60, 60, 13))]
        (tmp_path / recorded).write_text(json.dumps({"shards": entries}))
    else:
        stats(tmp_path / "2.tar", 13)
    assert read(tmp_path).losses == Losses()
    (tmp_path / "2.tar").unlink()
    data = read(tmp_path)
    gone = f"absent      recorded but missing: 1 shards ({tmp_path}/2.tar: 13 samples in {recorded})"
    assert data.losses.lines() == [gone]
    RunFolder(tmp_path).write("losses.json", vars(data.losses))
    assert closing_lines(tmp_path, {"quarantined": 0}) == [gone]
    assert read(tmp_path, f"data.shards={tmp_path}/{{0,1}}.tar").losses == Losses()
    message = refused(tmp_path, "data.max_quarantined=0.05")
    assert "13 of 133 recorded samples are missing, above data.max_quarantined=0.05, in 1" in message
    assert f"{tmp_path}/2.tar holds 0 of 13 in {recorded} (the shard is missing)" in message


def test_the_closing_table_names_what_was_lost_and_counts_shards_as_shards(tmp_path: Path) -> None:
    fields = {"source": 0, "pass": 0, "step": 5, "index": 4}
    rest = fields | {"shard": "/s/2.tar", "key": "", "reason": "broken tar"}
    short = fields | {"shard": "/s/3.tar", "key": "", "reason": "3 of the 12 samples", "missing": 3}
    bad = fields | {"shard": "/s/4.tar", "key": "a", "reason": "no image"}
    RunFolder(tmp_path).set_aside([rest, short, short | {"pass": 1}, bad])
    losses = Losses(
        {"/s/1.tar": "not a tar"}, 12, "1 of 5 shards cannot be read", {"/s/5.tar": ("x_stats.json", 160, 60)}
    )
    RunFolder(tmp_path).write("losses.json", vars(losses))
    trained = {
        "quarantined": 2, "rests": 1, "missing": 6, "beyond": {"0": 2}, "unread": {".large.jpg": 300},
        "cleaned": {"tags": 7},
    }  # fmt: skip
    quarantine = tmp_path / "quarantine.jsonl"
    assert closing_lines(tmp_path, trained) == [
        f"set aside   1 samples could not be trained on: {quarantine}",
        "left out    1 of 5 shards cannot be read",
        "counted     x_stats.json records 160 samples, /s/5.tar holds 60; every shard was counted, and the "
        "schedule follows the counts",
        "cut short   1 shards (/s/2.tar: broken tar)",
        "missing     12 recorded samples of the shards left out",
        f"missing     3 recorded samples are not in 1 shards (/s/3.tar: 3 of the 12 samples): {quarantine}",
        "more        2 samples beyond the recorded counts were trained on, at the end",
        "not read    300 images or texts with other suffixes: .large.jpg (300); "
        "see data.image_suffixes, data.text_suffixes",
        "cleaned     7 captions: tags (7)",
    ]
    assert closing_lines(tmp_path / "other", {"quarantined": 0}) == []
