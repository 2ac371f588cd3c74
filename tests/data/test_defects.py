"""Every defect that is known, planted among good samples: exactly those are set aside, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sclip.data.images import ImageError, random_crop
from sclip.data.shards import Rejected, read_shard
from support.defective_shards import Planted, write

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write(tmp_path_factory.mktemp("defects"))


def judged(shard: str) -> Iterator[tuple[str, str]]:
    """Yield key and reason of all that stands in a shard, the reason empty where it is trained on."""
    for item in read_shard(shard):
        if isinstance(item, Rejected):
            yield item.key, item.reason
            continue
        try:
            random_crop(item.image, 32, (0.9, 1.0), random.Random(0))
            yield item.key, ""
        except ImageError as error:
            yield item.key, str(error)


def test_exactly_what_is_planted_is_set_aside_and_everything_else_trained_on(planted: Planted) -> None:
    found = [(Path(shard).name, *entry) for shard in planted.shards for entry in judged(shard)]
    good: dict[str, list[str]] = {name: [] for name in planted.good}
    bad: Counter[tuple[str, str]] = Counter()
    for name, key, reason in found:
        if reason:
            bad[name, key] += 1
            expected = [part for of, named, part in planted.defects if (of, named) == (name, key)]
            assert any(part in reason for part in expected), (name, key, reason, expected)
        else:
            good[name].append(key)
    assert good == planted.good
    assert bad == Counter((name, key) for name, key, _ in planted.defects)
    assert not planted.marker.exists()


def test_no_defect_takes_more_memory_than_a_few_samples(planted: Planted) -> None:
    tracemalloc.start()
    try:
        for shard in planted.shards:
            for _ in judged(shard):
                pass
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()


def test_the_same_seed_plants_the_same_bytes(planted: Planted, tmp_path: Path) -> None:
    again = write(tmp_path / "again")
    assert again.good == planted.good
    assert again.defects == planted.defects
    assert sum(map(len, again.good.values())) > 90
    for shard in planted.shards:
        other = tmp_path / "again" / Path(shard).name
        if other.name not in ("good.tar", "images.tar", "members.tar"):  # these name their folder, in pickles
            assert other.read_bytes() == Path(shard).read_bytes()
