"""The next batch made in a thread: in order, one ahead, with its errors, and with what the step reads."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch

from sclip.config import Config, KEEConfig, LossConfig
from sclip.data import columns as col
from sclip.data.batches import Batches, Record
from sclip.train.prefetch import Prefetcher, prefetch_batches, prepared
from support.stream_blocks import BLANK, Row, block, samples, value_of
from support.train_cases import ROWS, batch_for, config_with, training_batch

CPU = torch.device("cpu")


class Counting:
    """Numbers from 1 on, told when each is begun; the one at `fails` is an error."""

    def __init__(self, fails: int = 0) -> None:
        self.fails, self.made = fails, 0
        self.begun = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def __call__(self) -> int:
        self.threads.add(threading.current_thread())
        self.made += 1
        self.begun.release()
        if self.made == self.fails:
            raise OSError("the storage is gone")
        return self.made


# The thread


def test_results_come_in_order_from_one_other_thread() -> None:
    make = Counting()
    with Prefetcher(make) as prefetcher:
        assert [prefetcher.next() for _ in range(5)] == [1, 2, 3, 4, 5]
    (thread,) = make.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_one_is_made_ahead_and_no_more() -> None:
    make = Counting()
    with Prefetcher(make) as prefetcher:
        for taken in range(1, 4):
            assert make.begun.acquire(timeout=60)  # begun before it is asked for
            assert prefetcher.next() == taken
        assert make.begun.acquire(timeout=60)
    assert make.made == 4


def test_an_error_is_raised_where_its_result_would_have_come_and_again_after_it() -> None:
    make = Counting(fails=3)
    with Prefetcher(make) as prefetcher:
        assert [prefetcher.next(), prefetcher.next()] == [1, 2]
        for _ in range(2):
            with pytest.raises(OSError, match="the storage is gone"):
                prefetcher.next()
    assert make.made == 3
    assert not any(thread.is_alive() for thread in make.threads)


def test_the_thread_ends_when_the_loop_raises() -> None:
    make = Counting()

    def loop() -> float:
        with Prefetcher(make) as prefetcher:
            return prefetcher.next() / 0

    with pytest.raises(ZeroDivisionError):
        loop()
    assert not any(thread.is_alive() for thread in make.threads)


def test_an_exit_in_the_thread_ends_the_loop_too() -> None:
    def make() -> int:
        raise SystemExit(3)

    with Prefetcher(make) as prefetcher, pytest.raises(SystemExit):
        prefetcher.next()


# The batches


def plain() -> Config:
    return config_with(pack_text=False)


def test_batches_come_as_the_stream_gives_them_and_empty_ones_at_its_end() -> None:
    rows: list[Row] = [*samples(0, 3), (0, 3, col.REJECTED), *samples(0, 2, first=4), (0, 6, col.END)]
    record, found = Record(), []
    with prefetch_batches(Batches([block(rows)], 2, 0, BLANK), plain(), False, CPU) as prefetcher:
        for _ in range(5):
            ready = prefetcher.next()
            record.passed(ready.batch)
            record.trained(ready.batch)
            found.append(ready)
    assert [ready.batch.ordinals.tolist() for ready in found] == [[0, 1], [2, 4], [5], [], []]
    for ready in found:
        tensors = ready.on_device()
        assert tensors["valid"].tolist() == [at < ready.batch.rows for at in range(2)]
        assert tensors["image_digest"][: ready.batch.rows].tolist() == [*map(value_of, ready.batch.ordinals)]
    assert record.position.low == 1
    assert len(record.rejected) == 1


def test_what_is_made_ahead_is_in_no_record_until_the_loop_takes_it() -> None:
    blocks = [
        block([*samples(0, 2)]),
        block([(0, 2, col.REJECTED), *samples(0, 2, first=3), (0, 5, col.END)]),
    ]
    batches, record = Batches(blocks, 2, 0, BLANK), Record()
    with prefetch_batches(batches, plain(), False, CPU) as prefetcher:
        ready = prefetcher.next()
        record.passed(ready.batch)
        record.trained(ready.batch)
    assert batches.next().rows == 0  # the thread had fetched the second batch
    taken = record.take()
    assert taken.position.done(0) == [range(0, 2)]
    assert taken.rejected == []


# What the step reads


def columns() -> dict[str, Any]:
    return {name: column.numpy() for name, column in training_batch(0).items()}


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("negatives", ["semantic", "none"])
@pytest.mark.parametrize("pack_text", [False, True])
def test_a_batch_is_packed_in_parts_without_what_is_not_trained_on(
    pack_text: bool, negatives: Any, micro_batch: int
) -> None:
    config = config_with(LossConfig(negatives=negatives), pack_text=pack_text, micro_batch=micro_batch)
    found, expected = prepared(columns(), config, packs_text=True), batch_for(config, 0)
    assert found.keys() == expected.keys()
    assert ("packed_text" in found) == pack_text
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column.numpy(), err_msg=name)


def test_a_tower_that_takes_no_packed_captions_gets_them_as_they_are() -> None:
    found = prepared(columns(), config_with(pack_text=True), packs_text=False)
    assert found.keys() == columns().keys()


def test_triples_are_left_out_without_the_encoder_and_those_of_negatives_where_it_is_off_for_them() -> None:
    config = config_with(pack_text=True)

    def with_kee(**kee: Any) -> Config:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, kee=KEEConfig(**kee)))

    without = prepared(columns(), with_kee(enabled=False), packs_text=True)
    assert not [name for name in without if "triple" in name or "owner" in name]
    assert (prepared(columns(), with_kee(), packs_text=True)["negative_slot"] >= 0).any()
    off = prepared(columns(), with_kee(on_negatives=False), packs_text=True)
    assert (off["negative_slot"] == -1).all()


def test_tokens_are_those_of_the_samples_without_padding() -> None:
    whole = columns()
    rows = block([*samples(0, ROWS - 1)]) | {name: v[: ROWS - 1] for name, v in whole.items()}
    blank = {name: values[0] for name, values in whole.items()}
    lengths = {name: np.count_nonzero(whole[name][: ROWS - 1], axis=-1) for name in ("text", "negative_text")}
    for negatives, names in (("semantic", ("text", "negative_text")), ("none", ("text",))):
        config = config_with(LossConfig(negatives=negatives))  # type: ignore[arg-type]
        with prefetch_batches(Batches([rows], ROWS, 0, blank), config, True, CPU) as prefetcher:
            assert prefetcher.next().tokens == sum(lengths[name].sum() for name in names)
