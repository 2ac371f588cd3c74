"""The audit counts the rows of a tar by itself, and gets the same number as the shard reader."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclip.config import DataConfig
from sclip.data.shards import Rejected, read_shard
from sclip.run.audit.tars import Tar, count_tars
from sclip.storage.retries import StorageError
from support.audited_runs import keys, tar_bytes

examples = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WHOLE = tar_bytes(keys(5))
FIRST = DataConfig()


def counted(path: Path, content: bytes, data: DataConfig = FIRST) -> Tar:
    path.write_bytes(content)
    return count_tars([str(path)], data.key_ends_at)[str(path)]


def rows_read(path: Path, data: DataConfig = FIRST) -> tuple[int, bool]:
    """Return how many rows the reader yields, without the rest of a broken tar, and whether the tar is broken."""
    items = list(read_shard(str(path), data))
    broken = isinstance(items[-1], Rejected) and not items[-1].key if items else False
    return len(items) - broken, broken


def members(names: Iterable[str], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif name.endswith(".link"):
                info.type, info.linkname = tarfile.SYMTYPE, "a.jpg"
            tar.addfile(info)
    return buffer.getvalue()


@given(
    names=st.lists(
        st.lists(
            st.sampled_from([*"ab./\\_é\n", "__MACOSX/", ".graph.json.gz", ".link"]), min_size=1, max_size=9
        ),
        max_size=12,
    ),
    format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    data=st.sampled_from([FIRST, DataConfig(key_ends_at="last_dot")]),
)
@examples
def test_any_member_names_give_as_many_rows_as_the_reader_yields(
    tmp_path: Path, names: list[list[str]], format: int, data: DataConfig
) -> None:
    path = tmp_path / "s.tar"
    tar = counted(path, members(["".join(name) * 20 for name in names], format), data)
    assert (tar.groups, tar.broken) == rows_read(path, data)


@given(cut=st.integers(0, len(WHOLE)), offset=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
@examples
def test_a_tar_cut_or_changed_in_a_byte_anywhere_is_judged_as_the_reader_does(
    tmp_path: Path, cut: int, offset: int, value: int
) -> None:
    path, damaged = tmp_path / "s.tar", bytearray(WHOLE)
    damaged[offset] = value
    for content in (WHOLE[:cut], bytes(damaged)):
        tar = counted(path, content)
        rows, broken = rows_read(path)
        assert tar.broken is broken
        assert tar.groups - rows in ((0, 1) if broken else (0,))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no tar", Tar(0, True)),
        (gzip.compress(WHOLE, mtime=0)[:20], Tar(0, True)),
        (members([]), Tar(0, False)),
        (WHOLE + WHOLE, Tar(5, True)),
        (gzip.compress(WHOLE + bytes(200_000)), Tar(5, True)),
        (WHOLE + bytes(512), Tar(5, False)),
    ],
)
def test_a_file_that_is_no_tar_or_continues_after_its_end_is_broken(
    content: bytes, expected: Tar, tmp_path: Path
) -> None:
    assert counted(tmp_path / "s.tar", content) == expected
    assert rows_read(tmp_path / "s.tar") == (expected.groups, expected.broken)


def test_many_tars_and_remote_tars_are_counted_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fsspec.open("memory://audit/s.tar", "wb") as file:
        file.write(WHOLE[: 5 * 2048])
    assert count_tars(["memory://audit/s.tar"], "first_dot") == {"memory://audit/s.tar": Tar(5, True)}
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    paths = [str(tmp_path / f"{rows}.tar") for rows in range(16)]
    for rows, path in enumerate(paths):
        Path(path).write_bytes(tar_bytes(keys(rows)))
    assert count_tars(paths, "first_dot") == {path: Tar(rows, False) for rows, path in enumerate(paths)}
    Path(paths[9]).unlink()
    with pytest.raises(StorageError, match=r"9\.tar: cannot be read: No such file"):
        count_tars(paths, "first_dot")


def parquet(rows: int) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"image": [bytes(2000)] * rows, "caption": ["a dog"] * rows})
    pq.write_table(table, buffer, row_group_size=10, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def test_a_parquet_file_has_the_rows_of_its_footer_unless_it_is_damaged(tmp_path: Path) -> None:
    url = str(tmp_path / "s.parquet")
    content = bytearray(parquet(40))
    Path(url).write_bytes(content)
    assert count_tars([url], "first_dot") == {url: Tar(40, False)}
    assert count_tars([url], "first_dot", {url: 20}) == {url: Tar(40, False)}  # although the run says 20
    offset = pq.ParquetFile(url).metadata.row_group(2).column(0).data_page_offset
    content[offset : offset + 40] = bytes(40)
    Path(url).write_bytes(content)
    rows, is_broken = rows_read(Path(url))
    assert is_broken
    assert count_tars([url], "first_dot", {url: rows}) == {url: Tar(rows, True)}
    Path(url).write_bytes(content[:100])
    assert count_tars([url], "first_dot") == {url: Tar(0, True)}
