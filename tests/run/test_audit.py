"""The audit needs only tars and ledger to find every row that was not trained exactly once in its step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sclip.config.loader import to_tree
from sclip.run.audit.account import AuditError, Rows, audit
from sclip.run.audit.show import lines
from support.audited_runs import Row, Run, Steps, keys, passes, tar_bytes
from support.storage_server import Storage, serving

SIZES = (7, 4, 9)
ROWS = passes(SIZES)


def summary(run: Run) -> dict[str, int]:
    """Return the nonzero numbers of an audit, and the first step whose rows differ from the order."""
    result = audit(run.folder)
    numbers = {name: n for name, n in vars(result).items() if type(n) is int and n and name != "epochs"}
    return numbers | ({"differs": result.first_difference.step} if result.first_difference else {})


def named(rows: tuple[Rows, ...]) -> dict[tuple[str, int], list[tuple[int, int]]]:
    return {(Path(row.shard).name, row.pass_): list(row.ranges) for row in rows}


def unknown(run: Run) -> set[tuple[object, ...]]:
    rows = audit(run.folder).unknown_rows
    return {(Path(row.shard).name, row.pass_, row.ranges, row.reason) for row in rows}


def upto(steps: Steps, last: int) -> Steps:
    return {step: ranks for step, ranks in steps.items() if step <= last}


def after(steps: Steps, last: int) -> Steps:
    return {step: ranks for step, ranks in steps.items() if step > last}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of(tmp_path, SIZES)


EXACT = {"expected": 40, "trained_once": 40}


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_run_that_trained_every_row_once_a_pass_is_exact(run: Run, world_size: int) -> None:
    run.attempt(0, run.steps(world_size))
    result = audit(run.folder)
    assert (result.exact, result.complete, result.epochs) == (True, True, 2)
    assert summary(run) == EXACT
    assert result.notes == result.missed_rows == result.repeated_rows == result.quarantined_rows == ()
    # The same rows on other ranks.
    run.attempt(0, {step: ranks[::-1] for step, ranks in run.steps(world_size).items()})
    assert summary(run) == EXACT


@pytest.mark.parametrize("recorded", [(1, 1, 1), (3, 9, 9)], ids=["fewer", "both"])
def test_recorded_shard_counts_set_the_order_but_the_audit_counts_rows_itself(
    tmp_path: Path, recorded: tuple[int, ...]
) -> None:
    """Rows beyond the recorded counts come in extra steps at the end; places of absent rows stay empty."""
    run = Run.of(tmp_path, SIZES, recorded=[recorded])
    run.attempt(0, run.steps(2))
    assert summary(run) == EXACT


def test_shards_recorded_without_credentials_must_be_named_again(run: Run) -> None:
    run.attempt(0, run.steps(2))
    path, paths = run.folder / "shards.json", run.sources[0]
    files = {f"/{tar.name}": tar.read_bytes() for tar in paths}
    with serving(Storage(files, user="name:planted")) as server:
        path.write_text(path.read_text().replace(f"{paths[0].parent}/", f"http://***@{server.host}/"))
        with pytest.raises(AuditError, match=r"3 shards are recorded without their credentials.*--shards"):
            audit(run.folder)
        assert audit(run.folder, [f"http://name:planted@{server.host}/source-0-{{0..2}}.tar"]).exact
        with pytest.raises(AuditError, match=r"http://\*\*\*@.*HTTP 401") as raised:
            audit(run.folder, [f"http://name:guessed@{server.host}/source-0-{{0..2}}.tar"])
        assert "guessed" not in str(raised.value)


def test_data_that_was_moved_is_found_by_the_names_of_its_shards(tmp_path: Path) -> None:
    run = Run.of(tmp_path, [3], [3])
    broken: Row = (1, 0, 0, 1)
    run.attempt(0, run.steps(without=[broken]))
    run.quarantine(broken)
    assert audit(run.folder).exact
    moved = tmp_path / "moved"
    moved.mkdir()
    for paths in run.sources:
        paths[0].rename(moved / paths[0].name)
    with pytest.raises(AuditError, match=r"source-0-0\.tar: cannot be read"):
        audit(run.folder)
    first, second = (f"{moved}/source-{source}-*.tar" for source in (0, 1))
    result = audit(run.folder, [first, second])
    assert result.exact
    assert (result.expected, result.trained_once) == (12, 11)
    assert [row.shard for row in result.quarantined_rows] == [f"{moved}/source-1-0.tar"]
    for wrong in ([first], [second, first], [f"{tmp_path}/moved/*.tar"]):
        with pytest.raises(AuditError, match=r"--shards: .*tar is no shard of the run; if its data was"):
            audit(run.folder, wrong)


def test_planted_losses_and_repetitions_are_found_as_ranges_of_their_shard_and_pass(run: Run) -> None:
    lost = {(0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 2, 8), (0, 0, 1, 0)}
    run.attempt(0, run.steps(2, without=lost))
    result = audit(run.folder)
    assert not result.exact
    first = min(step for step, (rows,) in run.steps().items() if lost & set(rows))
    assert summary(run) == {"expected": 40, "trained_once": 36, "missed": 4, "differs": first}
    missed = {("source-0-1.tar", 0): [(0, 0)], ("source-0-2.tar", 1): [(3, 4), (8, 8)]}
    assert named(result.missed_rows) == missed

    in_one_step: list[Row] = [(0, 1, 2, 8)] * 300
    again: list[Row] = [(0, 0, 0, 6), (0, 0, 0, 5), (0, 0, 0, 5)]
    run.attempt(0, run.steps(2) | {8: [in_one_step, again]})
    result = audit(run.folder)
    assert not result.exact
    assert summary(run) == {"expected": 40, "trained_once": 37, "repeated": 3, "differs": 8}
    repeated = {("source-0-0.tar", 0): [(5, 6)], ("source-0-2.tar", 1): [(8, 8)]}
    assert named(result.repeated_rows) == repeated


def test_rows_swapped_between_steps_or_drawn_with_another_seed_or_buffer_differ_from_the_order(
    run: Run,
) -> None:
    run.attempt(0, run.steps(2))
    for section, key in (("run", "seed"), ("data", "shuffle_buffer")):
        config = to_tree(run.config)
        config[section][key] += 1
        run.write("config.json", config)
        assert summary(run) == EXACT | {"differs": 1}
    run.write("config.json", to_tree(run.config))
    steps = run.steps(2)
    (row, *_), (other, *_) = steps[3][1], steps[6][0]
    steps[3][1][0], steps[6][0][0] = other, row
    run.attempt(0, steps)
    assert summary(run) == EXACT | {"differs": 3}
    result = audit(run.folder)
    assert not result.exact
    assert result.first_difference
    for rows, expected in ((result.first_difference.lacks, row), (result.first_difference.extra, other)):
        assert named(rows) == {(f"source-0-{expected[2]}.tar", expected[1]): [(expected[3], expected[3])]}


def test_work_lost_in_a_crash_is_neither_missed_nor_repeated_however_many_ranks_resume(run: Run) -> None:
    steps = run.steps(2)
    assert list(steps) == [1, 2, 3, 4, 5, 6, 7]
    run.attempt(0, upto(steps, 6))
    run.attempt(1, {5: steps[7][::-1], 6: steps[6]}, from_step=4)  # in another order, and discarded too
    run.attempt(2, after(run.steps(3), 3), from_step=3)
    assert summary(run) == EXACT
    run.attempt(3, after(run.steps(1), 5), from_step=5)
    assert audit(run.folder).notes == ()
    assert summary(run) == EXACT


def test_steps_that_no_later_attempt_redid_are_missed_and_steps_done_twice_are_repeated(run: Run) -> None:
    steps = run.steps(2)
    run.attempt(0, upto(steps, 4))
    run.attempt(1, after(steps, 5), from_step=4)
    assert summary(run) == {"expected": 40, "trained_once": 34, "missed": 6, "differs": 5}
    run.attempt(1, after(steps, 3), from_step=4)
    assert summary(run) == {"expected": 40, "trained_once": 34, "repeated": 6, "differs": 4}
    run.attempt(1, {4: steps[5]} | after(steps, 2), from_step=4)
    assert summary(run)["differs"] == 4


def test_a_cut_ledger_counts_the_steps_that_it_holds_and_a_lost_ledger_is_noted(run: Run) -> None:
    def cut(ledger: Path) -> None:
        ledger.write_bytes(ledger.read_bytes()[:-4])

    steps = run.steps(2)
    run.attempt(0, upto(steps, 5))
    cut(run.ledger(0, 1))
    run.attempt(1, after(steps, 4), from_step=4)
    assert summary(run) == EXACT
    cut(run.ledger(1, 0))
    lost = len(steps[7][0])
    assert summary(run) == {"expected": 40, "trained_once": 40 - lost, "missed": lost, "differs": 7}
    run.attempt(0, steps)
    run.ledger(1, 1).unlink()
    run.ledger(1, 0).write_text('{"attempt": 1, "ra')
    assert summary(run) == EXACT
    assert audit(run.folder).notes == ("0001-00000.jsonl was cut off within its first line",)
    run.ledger(1, 0).unlink()
    run.ledger(0, 1).unlink()
    assert audit(run.folder).notes == ("attempt 0: no ledger of rank 1",)
    lost = sum(len(ranks[1]) for ranks in steps.values())
    assert summary(run) == {"expected": 40, "trained_once": 40 - lost, "missed": lost, "differs": 1}


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "tra', "[]", '{"step": 1, "trained": 5}', '{"step": 1, "trained": [[0, 0, 0]]}',
        '{"step": 1, "trained": [[0, 0, 0, [1.5]]]}', '{"step": 1, "trained": [[0, 0, [0], [1]]]}',
    ],
)  # fmt: skip
def test_a_damaged_line_in_the_middle_of_a_ledger_is_named(run: Run, line: str) -> None:
    run.attempt(0, run.steps())
    head, *steps = run.ledger(0, 0).read_text().splitlines(keepends=True)
    run.ledger(0, 0).write_text("".join([head, line + "\n", *steps]))
    with pytest.raises(AuditError, match=r"0000-00000\.jsonl line 2: not "):
        audit(run.folder)


def test_quarantined_and_filtered_rows_are_counted_separately(run: Run) -> None:
    bad = [(0, 0, 1, 1), (0, 1, 1, 1), (0, 1, 2, 0)]
    small = [row for row in ROWS if row[2] == 0 and row[3] == 2]
    run.attempt(0, run.steps(2, without=bad), filtered=small)
    run.quarantine(*bad[:2])
    assert summary(run).items() > {"trained_once": 35, "filtered": 2, "quarantined": 2, "missed": 1}.items()
    run.quarantine(bad[2], key="0000", reason="no image")
    result = audit(run.folder)
    assert result.exact
    assert summary(run) == {"expected": 40, "trained_once": 35, "filtered": 2, "quarantined": 3}
    listed = [(Path(row.shard).name, *list(vars(row).values())[1:]) for row in result.quarantined_rows]
    assert listed == [
        ("source-0-1.tar", 1, "0001", "no caption", 2), ("source-0-2.tar", 0, "0000", "no image", 1)
    ]  # fmt: skip


def test_rows_that_contradict_each_other_or_the_tars_are_unknown(run: Run) -> None:
    beyond: list[Row] = [(0, 0, 1, 4), (0, 0, 1, 5), (0, 2, 0, 0), (0, 0, 3, 0), (5, 0, 0, 0)]
    steps = run.steps(2)
    steps[7][0] += beyond
    run.attempt(0, steps)
    run.quarantine((0, 1, 0, 6))
    assert not audit(run.folder).exact
    assert summary(run) == {"expected": 40, "trained_once": 39, "unknown": 6, "differs": 7}
    assert unknown(run) == {
        ("source-0-0.tar", 1, ((6, 6),), "trained once and quarantined once"),
        ("source-0-0.tar", 2, ((0, 0),), "the schedule has no such visit"),
        ("source-0-1.tar", 0, ((4, 5),), "its tar has 4 rows"),
        ("shard 3 of source 0", 0, ((0, 0),), "the schedule has no such visit"),
        ("shard 0 of source 5", 0, ((0, 0),), "the schedule has no such visit"),
    }


def cut_shard(run: Run, size: int) -> None:
    """Cut the last shard in its group 4, keeping `size` bytes of it: header, body, header, body of 512 bytes each."""
    run.sources[0][2].write_bytes(tar_bytes(keys(9))[: 4 * 2048 + size])


@pytest.mark.parametrize(
    ("size", "whole"),
    [(512, 4), (1000, 4), (1200, 4), (2048, 5)],
    ids="header body next none".split(),
)
def test_the_unreadable_rest_of_a_cut_tar_is_one_row_that_must_be_set_aside(
    run: Run, size: int, whole: int
) -> None:
    cut_shard(run, size)
    run.attempt(0, run.steps(2))
    run.quarantine((0, 0, 2, whole), (0, 1, 2, whole), key="", reason="broken tar")
    rows = len([row for row in ROWS if row[2] < 2 or row[3] < whole])
    assert summary(run) == {"expected": rows + 2, "trained_once": rows, "quarantined": 2}
    tar = run.sources[0][2]
    tar.with_name(f"{tar.stem}_stats.json").write_text('{"successes": 9}')
    assert [lost.samples for lost in audit(run.folder).lost] == [9 - whole]
    (run.folder / "quarantine.jsonl").unlink()
    assert {name for name, _ in named(audit(run.folder).missed_rows)} == {"source-0-2.tar"}


def test_an_unreadable_rest_that_was_trained_on_or_is_readable_is_unknown(run: Run) -> None:
    cut_shard(run, 2048)
    steps = run.steps(2)
    steps[7][0].append((0, 0, 2, 5))
    run.attempt(0, steps)
    run.quarantine((0, 1, 2, 3), (0, 1, 0, 6), key="", reason="broken tar")
    readable = "set aside as the unreadable rest, but it is readable"
    assert unknown(run) == {
        ("source-0-2.tar", 0, ((5, 5),), "trained once, but it is the unreadable rest of its tar"),
        ("source-0-2.tar", 1, ((3, 3),), readable),
        ("source-0-0.tar", 1, ((6, 6),), readable),
    }


def test_weighted_sources_are_expected_as_often_as_the_schedule_visits_them(tmp_path: Path) -> None:
    """The second source has the larger weight, so the schedule visits it more often."""
    run = Run.of(tmp_path, [5] * 5, [3, 4] * 2, weights=(1.0, 2.0), epochs=3, seed=7)
    steps = run.steps(2)
    rows = [row for ranks in steps.values() for rank_rows in ranks for row in rank_rows]
    assert max(row[1] for row in rows if row[0] == 1) > max(row[1] for row in rows if row[0] == 0)
    run.attempt(0, steps)
    assert summary(run) == {"expected": len(rows), "trained_once": len(rows)}
    run.attempt(0, run.steps(2, without=rows[-1:]))
    source, pass_, shard, index = rows[-1]
    (lost,) = audit(run.folder).missed_rows
    assert (Path(lost.shard).name, lost.source, lost.pass_) == (f"source-{source}-{shard}.tar", source, pass_)
    assert lost.ranges == ((index, index),)


def test_rows_that_an_unfinished_run_has_not_trained_on_or_recorded_are_missed(run: Run) -> None:
    (run.folder / "complete.json").unlink()
    steps = run.steps(2)
    last = steps[5][0].pop()  # set aside after the newest checkpoint, so not recorded yet
    run.attempt(0, upto(steps, 5))
    (note,) = audit(run.folder).notes
    assert note == "the run is not complete: rows that it has not trained on yet count as missed"
    for step, differs in ((4, {}), (5, {"differs": 5})):
        (run.folder / f"step-{step:08d}").mkdir()
        run.write(f"step-{step:08d}/manifest.json", {})
        assert summary(run) == {"expected": 40, "trained_once": 29, "missed": 11} | differs
    run.quarantine(last)
    assert summary(run) == {"expected": 40, "trained_once": 29, "missed": 10, "quarantined": 1}


def test_a_broken_tar_is_not_judged_before_the_run_reaches_its_end(run: Run) -> None:
    cut_shard(run, 1000)  # only at the break is it known whether the broken group has a place
    (run.folder / "complete.json").unlink()
    run.attempt(0, upto(run.steps(2), 2))
    assert audit(run.folder).order == "exact"


def test_lost_shards_and_samples_are_reported_even_if_every_existing_row_was_trained_on(
    tmp_path: Path,
) -> None:
    run = Run.of(tmp_path, [5, 4, 3], epochs=1)
    run.attempt(0, run.steps())
    assert audit(run.folder).lost == ()
    zeros, short, stats = run.sources[0]
    zeros.write_bytes(zeros.read_bytes() + bytes(100_000))
    run.quarantine((0, 0, 0, 5), key="", reason="broken tar")
    short.with_name("index.json").write_text(json.dumps({"shards": [{"name": short.name, "samples": 6}]}))
    stats.with_name(f"{stats.stem}_stats.json").write_text('{"successes": 2}')
    run.write("losses.json", {"unreadable": {"/gone.tar": "not a tar: a Git LFS pointer"}})
    result = audit(run.folder)
    assert result.exact
    losses = [(Path(loss.shard).name, loss.samples) for loss in result.lost]
    assert losses == [("gone.tar", 0), (zeros.name, 0), (short.name, 2)]
    text = "\n".join(lines(result, 20))
    assert " quarantined=1 lost_shards=3 order=exact\n" in text
    assert f"lost        {short}: 4 of the 6 samples that index.json records" in text
    assert f"lost        {zeros}: broken, 1" in text
