"""Shards at any URI: failures are retried, refusals are reported at once, and credentials are never shown."""

import traceback
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from sclip.config import DataConfig
from sclip.data.counts import count_samples
from sclip.data.patterns import expand
from sclip.data.shards import ShardError, read_shard
from sclip.prepare.annotated import AnnotatedFolder, shard_names
from sclip.prepare.pack import Skips
from sclip.prepare.statistics import CorpusCounts, corpus_of
from sclip.prepare.subset import Kept, passing_samples
from sclip.prepare.writing import PackError
from sclip.report import CorpusStatistics
from sclip.storage import retries as storage
from support.storage_server import CONTENT, CUT, WHOLE, Storage, keys, url_of


@pytest.mark.parametrize("kind", ["http", "s3", "gs", "stream"])
@pytest.mark.parametrize("faults", [[429, 503], [CUT, 500]])
def test_a_server_that_recovers_costs_no_sample_and_repeats_none(
    server: Storage, kind: str, faults: list[int]
) -> None:
    server.ranges = kind != "stream"
    server.faults["/bucket/train/000.tar"] = list(faults)
    assert keys(url_of("http" if kind == "stream" else kind, server)) == WHOLE
    assert server.faults["/bucket/train/000.tar"] == []


def test_lookups_and_files_beside_a_shard_are_retried_too(server: Storage) -> None:
    url = url_of("http", server)
    server.files["/bucket/train/index.json"] = b'{"shards": [{"name": "000.tar", "samples": 11}]}'
    for path in ("000.tar", "index.json"):
        server.faults[f"/bucket/train/{path}"] = [500, 503]
    assert count_samples(expand([url])).records == {url: ("index.json", 11)}


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_server_that_does_not_recover_is_reported_with_its_last_error(server: Storage, kind: str) -> None:
    server.faults["/bucket/train/000.tar"] = [500] * 100
    with pytest.raises(
        ShardError, match=r"000\.tar.*: storage failed 3 times; last error: .*HTTP (status )?500"
    ):
        keys(url_of(kind, server))
    with pytest.raises(
        ShardError, match=r"http://127\.0\.0\.1:9/a\.tar: storage failed 3 times.*Cannot connect"
    ):
        expand(["http://127.0.0.1:9/a.tar"])


class FlakyFile(MemoryFile):
    """Fails once at each of the positions in `failures`, in order."""

    def read(self, size: int = -1) -> bytes:
        failures = FlakyFileSystem.failures
        if failures and self.tell() >= failures[0]:
            failures.pop(0)
            raise ConnectionError("reset by peer")
        return super().read(size)


class FlakyFileSystem(MemoryFileSystem):
    protocol = "flaky"
    failures: list[int]

    def _open(self, path: str, mode: str = "rb", **_: object) -> MemoryFile:
        return FlakyFile(self, path, CONTENT)


def test_any_number_of_failures_with_progress_is_survived_and_a_permanent_failure_is_raised() -> None:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.failures = [20_000, 30_000, 40_000, 50_000, 60_000]
    assert keys("flaky://bucket/000000.tar") == WHOLE
    assert FlakyFileSystem.failures == []
    FlakyFileSystem.failures = [20_000] * 10
    with pytest.raises(ShardError, match=r"flaky://bucket/000000.tar: storage failed 3 times.*reset by peer"):
        list(read_shard("flaky://bucket/000000.tar"))
    assert len(FlakyFileSystem.failures) == 7


def test_only_some_of_many_shards_are_looked_up_ahead() -> None:
    names: list[str] = []
    answers = storage.concurrently(lambda name: names.append(name) or name, [str(n) for n in range(100_000)])
    assert [next(answers) for _ in range(3)] == ["0", "1", "2"]
    assert len(names) < 2000
    answers.close()


@pytest.mark.parametrize("kind", ["http", "s3", "gs"])
@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_reported_at_once_in_one_line(server: Storage, kind: str, status: int) -> None:
    server.faults["/bucket/train/000.tar"] = [status] * 10
    server.faults["/storage/v1/b/bucket/o/train/000.tar"] = [status] * 10
    with pytest.raises(ShardError) as caught:
        keys(url_of(kind, server))
    assert "check the address and the credentials" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "pattern"), [("http", "000.tar"), ("s3", "*.tar"), ("gs", "000.tar"), ("gs", "*.tar")]
)
def test_a_forbidden_lookup_is_not_taken_for_an_absent_shard(
    server: Storage, kind: str, pattern: str
) -> None:
    for path in ("/bucket/train/", "/bucket/train/000.tar", "/bucket", "/storage/v1/b/bucket/o"):
        server.faults[path] = [403] * 10
    server.faults["/storage/v1/b/bucket/o/train/000.tar"] = [403] * 10
    with pytest.raises(ShardError) as caught:
        expand([url_of(kind, server, pattern)])
    assert "no such" not in str(caught.value)
    assert "check the address and the credentials" in str(caught.value)


def test_basic_auth_and_signed_queries_open_a_shard_and_its_folder(server: Storage) -> None:
    server.user, server.signature = "me:pa/ss", "X-Amz-Signature=0123abcd&se=2030"
    server.files["/bucket/train/000_stats.json"] = b'{"successes": 7}'
    (url,) = expand([f"http://me:pa%2Fss@{server.host}/bucket/train/000.tar?{server.signature}"])
    assert keys(url) == WHOLE
    assert count_samples([url]).records == {url: ("000_stats.json", 7)}


@pytest.mark.parametrize(("kind", "status"), [("http", 401), ("http", 500), ("s3", 403), ("s3", 404)])
def test_no_message_and_no_traceback_holds_a_credential(server: Storage, kind: str, status: int) -> None:
    server.faults["/bucket/train/000.tar"] = [status] * 6
    if kind == "http":
        url = f"http://me:hidden1@{server.host}/bucket/train/000.tar?sig=hidden2"
    else:
        url = f"s3://key:hidden1@bucket/train/000.tar?endpoint_override={server.host}&scheme=http"
    for attempt in (lambda: expand([url]), lambda: list(read_shard(url)), lambda: expand([url + "{a"])):
        with pytest.raises(ShardError) as caught:
            attempt()
        assert "hidden" not in "".join(traceback.format_exception(caught.value))
        assert "***@" in str(caught.value)


def test_no_report_of_a_job_holds_a_credential_and_another_signature_is_the_same_shard(
    server: Storage, tmp_path: Path
) -> None:
    url = f"http://me:hidden1@{server.host}/bucket/train/000.tar?sig=hidden/2"
    skips = Skips()
    assert list(passing_samples([url], (0, 0, 0), DataConfig(), Kept(), skips)) == []
    corpus = corpus_of([url], DataConfig())
    with pytest.raises(PackError) as caught:
        shard_names([url, url + "3"])
    folder = AnnotatedFolder(tmp_path, "stamp", DataConfig())
    folder.claim(shard_names([url]), overwrite=False)
    folder.finish("000.tar", url, None, [], CorpusStatistics())
    texts = [*skips.lines(), *CorpusCounts(CorpusStatistics()).notes(corpus), str(caught.value)]
    texts += [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(texts) == 4
    assert all(f"http://***@{server.host}/bucket/train/000.tar?sig=***" in text for text in texts)
    assert not [text for text in texts if "hidden" in text]
    assert corpus.title == "train"
    assert folder.claim(shard_names([url + "3"]), overwrite=False) == []
