"""A thread prepares the next batch: in order, one ahead, in its own memory, with the columns that the step reads."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sclip.config import KEEConfig, LossConfig
from sclip.data import columns as col
from sclip.data.batches import Batches, Record
from sclip.data.order import Order
from sclip.data.schedule import Schedule
from sclip.train import prefetch
from sclip.train.prefetch import Prefetcher, prefetch_batches, prepared
from support.stream_blocks import BLANK, Columns, block, samples, tar_index, value_of
from support.train_cases import MODEL, ROWS, batch_for, config_with, training_batch

CPU = torch.device("cpu")


class Counting:
    """Returns 1, 2, 3, ..., and signals the beginning of each call. Call number `fails` raises the error."""

    def __init__(self, error: type[BaseException] = OSError, fails: int = 0) -> None:
        self.error, self.fails, self.made = error, fails, 0
        self.begun = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def __call__(self) -> int:
        self.threads.add(threading.current_thread())
        self.made += 1
        self.begun.release()
        if self.made == self.fails:
            raise self.error("the storage is gone")
        return self.made


def test_results_come_in_order_from_another_thread_that_prepares_only_one_ahead() -> None:
    make = Counting()
    with Prefetcher(make) as prefetcher:
        for number in range(1, 4):
            assert make.begun.acquire(timeout=60)  # begun before the caller asks
            assert prefetcher.next() == number
        assert make.begun.acquire(timeout=60)
    assert make.made == 4
    (thread,) = make.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_a_long_wait_is_reported_repeatedly_and_the_result_comes_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefetch, "TELL_S", 0.01)
    waits_s, come = list[float](), threading.Event()

    def tell(waited_s: float) -> None:
        waits_s.append(waited_s)
        if len(waits_s) == 3:
            come.set()

    with Prefetcher(lambda: come.wait(60)) as prefetcher:
        assert prefetcher.next(tell)
    assert waits_s[:3] == pytest.approx([0.01, 0.02, 0.03])


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_an_error_is_raised_where_its_result_would_have_come_and_again_after_it(error: Any) -> None:
    make = Counting(error, fails=3)
    with Prefetcher(make) as prefetcher:
        assert [prefetcher.next(), prefetcher.next()] == [1, 2]
        for _ in range(2):
            with pytest.raises(error, match="the storage is gone"):
                prefetcher.next()
    assert make.made == 3
    assert not any(thread.is_alive() for thread in make.threads)


PLAIN = config_with(pack_text=False)


def order_of(rows: int, size: int) -> Order:
    return Order(Schedule(1, 1, (1,)), ((rows,),), 1, size)


def test_a_batch_stays_unchanged_while_the_next_is_made_and_the_one_after_reuses_its_memory() -> None:
    """The third batch's block waits for the test; until then nothing may overwrite the first batch."""
    is_through, record = threading.Event(), Record()

    def blocks() -> Iterator[Columns]:
        yield block([*samples(0, 3), (0, 3, col.REJECTED)])
        is_through.wait(60)
        yield block(samples(0, 2, first=4))

    batches = Batches([blocks()], order_of(6, 2), 0, BLANK)
    with prefetch_batches(batches, PLAIN, False, CPU) as prefetcher:
        made = [prefetcher.next()]
        first = made[0].on_device()
        before = {name: tensor.clone() for name, tensor in first.items()}
        made.append(prefetcher.next())
        second = made[1].on_device()
        for name, tensor in first.items():
            assert torch.equal(tensor, before[name]), name
        is_through.set()
        made.append(prefetcher.next())
        third = made[2].on_device()
        with pytest.raises(StopIteration):
            prefetcher.next()
    for number, ready in enumerate(made):
        record.passed(ready.batch)
        assert len(record.rejected) == (number > 0)
    assert [[tar_index(i) for i in ready.batch.indices] for ready in made] == [[0, 1], [2], [4, 5]]
    assert second["valid"].tolist() == [True, False]
    for name in col.MODEL_COLUMNS:
        assert first[name].data_ptr() == third[name].data_ptr() != second[name].data_ptr()
    assert third["image_digest"].tolist() == [value_of(4), value_of(5)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies to a GPU are not waited for")
def test_memory_is_written_again_only_after_the_copy_to_the_gpu_has_finished() -> None:
    batches = Batches([[block(samples(0, 40))]], order_of(40, 2), 0, BLANK)
    with prefetch_batches(batches, PLAIN, False, torch.device("cuda", 0)) as prefetcher:
        for step in range(20):
            digests = prefetcher.next().on_device()["image_digest"].tolist()
            assert digests == [value_of(2 * step), value_of(2 * step + 1)]


def columns() -> dict[str, Any]:
    return {name: column.numpy() for name, column in training_batch(0).items()}


def test_a_batch_is_packed_in_parts_without_columns_that_are_not_trained_on() -> None:
    cases: list[tuple[bool, Any, int]] = [(False, "none", 0), (True, "semantic", 2), (True, "none", 0)]
    for pack_text, negatives, micro_batch in cases:
        config = config_with(LossConfig(negatives=negatives), pack_text=pack_text, micro_batch=micro_batch)
        batch, expected = prepared(columns(), config, packs_text=True), batch_for(config, 0)
        assert batch.keys() == expected.keys()
        assert ("packed_text" in batch) == pack_text
        for name, column in expected.items():
            np.testing.assert_array_equal(batch[name], column.numpy(), err_msg=name)
        unpacked = prepared(columns(), config, packs_text=False)
        assert not [name for name in unpacked if name.startswith("packed")]


def test_triples_are_left_out_without_an_encoder_and_negative_triples_if_it_ignores_negatives() -> None:
    def with_kee(**kee: Any) -> dict[str, Any]:
        model = dataclasses.replace(MODEL, kee=KEEConfig(**kee))
        return prepared(columns(), config_with(model=model, pack_text=True), packs_text=True)

    assert not [name for name in with_kee(enabled=False) if "triple" in name or "owner" in name]
    assert (with_kee()["negative_slot"] >= 0).any()
    assert (with_kee(on_negatives=False)["negative_slot"] == -1).all()


def test_token_counts_exclude_padding() -> None:
    whole = columns()
    rows = block(samples(0, ROWS - 1)) | {name: v[: ROWS - 1] for name, v in whole.items()}
    blank = {name: values[0] for name, values in whole.items()}
    lengths = {name: np.count_nonzero(whole[name][: ROWS - 1], axis=-1) for name in ("text", "negative_text")}
    for negatives, names in (("semantic", ("text", "negative_text")), ("none", ("text",))):
        config = config_with(LossConfig(negatives=negatives))  # type: ignore[arg-type]
        batches = Batches([[rows]], order_of(ROWS - 1, ROWS), 0, blank)
        with prefetch_batches(batches, config, True, CPU) as prefetcher:
            assert prefetcher.next().tokens == sum(lengths[name].sum() for name in names)
