"""Data is identified by the checksums of packed shards, and otherwise by the paths and counts of its shards."""

import json
from pathlib import Path

import pytest

from sclip.data.schedule import NamedShard
from sclip.run.fingerprint import DatasetFingerprint, fingerprint
from sclip.storage import retries as storage


def dataset(shards: dict[str, int], parser: str = "") -> DatasetFingerprint:
    """Return the fingerprint of a run with a single source."""
    named = {NamedShard(f"0/{n}.tar", url): count for n, (url, count) in enumerate(shards.items())}
    return fingerprint([named], parser)


def packed(folder: Path, checksums: dict[str, str]) -> dict[str, int]:
    folder.mkdir(parents=True)
    shards = [{"name": name, "samples": 5, "sha256": sha256} for name, sha256 in checksums.items()]
    (folder / "index.json").write_text(json.dumps({"format": 1, "shards": shards}))
    return {f"{folder}/{name}": 5 for name in checksums}


def test_packed_data_is_the_same_wherever_it_lies_and_in_any_order(tmp_path: Path) -> None:
    original = packed(tmp_path / "coco" / "train", {"0.tar": "aa", "1.tar": "bb"})
    copied = packed(tmp_path / "other", {"0.tar": "aa", "1.tar": "bb"})
    result = dataset(original, "rules-1")
    assert result.digest == dataset(dict(reversed(copied.items())), "rules-1").digest
    assert (result.name, len(result.digest)) == ("coco/train", 32)
    assert result.profile == {"samples": 10, "shards": 2, "packed": 2, "parser": "rules-1"}
    assert result.digest != dataset(packed(tmp_path / "two", {"0.tar": "aa", "1.tar": "bc"})).digest


def test_data_without_an_index_of_ours_is_known_by_its_places_and_counts(tmp_path: Path) -> None:
    known = dataset({f"{tmp_path}/a/0.tar": 5})
    assert known.profile["packed"] == 0
    assert known.digest != dataset({f"{tmp_path}/a/0.tar": 6}).digest
    assert known.digest != dataset({f"{tmp_path}/b/0.tar": 5}).digest
    for content in ("[]", "{", '{"shards": [{"name": "0.tar"}]}', '{"shards": 1}'):
        (tmp_path / "index.json").write_text(content)
        assert dataset({f"{tmp_path}/0.tar": 5}).profile["packed"] == 0


def test_a_secret_in_a_uri_changes_neither_the_fingerprint_nor_the_name_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {dataset({f"file://user:{secret}@host{tmp_path}/0.tar": 5}).digest for secret in ("a", "b")}
    assert len(digests) == 1
    monkeypatch.setattr(storage, "RETRY_DELAYS_S", (0.0,))
    url = "http://user:planted@127.0.0.1:9/0.tar?sig=planted"
    assert dataset({url: 5}).name == "/***@127.0.0.1:9"
