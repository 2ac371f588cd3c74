"""The audit finds every row that was not trained exactly once in its step, from the tars and the ledger alone."""

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
    """Return the numbers of an audit that are not 0, and the first step that differs from the order."""
    found = audit(run.folder)
    numbers = {name: n for name, n in vars(found).items() if type(n) is int and n and name != "epochs"}
    return numbers | ({"differs": found.first_difference.step} if found.first_difference else {})


def named(rows: tuple[Rows, ...]) -> dict[tuple[str, int], list[tuple[int, int]]]:
    return {(Path(of.shard).name, of.pass_): list(of.ranges) for of in rows}


def unknown(run: Run) -> set[tuple[object, ...]]:
    rows = audit(run.folder).unknown_rows
    return {(Path(of.shard).name, of.pass_, of.ranges, of.reason) for of in rows}


def upto(steps: Steps, last: int) -> Steps:
    return {step: of for step, of in steps.items() if step <= last}


def after(steps: Steps, last: int) -> Steps:
    return {step: of for step, of in steps.items() if step > last}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of(tmp_path, SIZES)


EXACT = {"expected": 40, "trained_once": 40}


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_run_that_trained_every_row_once_a_pass_is_exact(run: Run, world_size: int) -> None:
    run.attempt(0, run.steps(world_size))
    found = audit(run.folder)
    assert (found.exact, found.complete, found.epochs) == (True, True, 2)
    assert summary(run) == EXACT
    assert found.notes == found.missed_rows == found.repeated_rows == found.quarantined_rows == ()
    run.attempt(0, {step: of[::-1] for step, of in run.steps(world_size).items()})  # by other ranks
    assert summary(run) == EXACT


@pytest.mark.parametrize("recorded", [(1, 1, 1), (3, 9, 9)], ids=["fewer", "both"])
def test_the_counts_that_the_run_has_of_its_shards_make_its_order_and_are_not_believed(
    tmp_path: Path, recorded: tuple[int, ...]
) -> None:
    """Rows beyond them come in steps at the end, places of rows that are not there stay empty."""
    run = Run.of(tmp_path, SIZES, recorded=[recorded])
    run.attempt(0, run.steps(2))
    assert summary(run) == EXACT


def test_shards_that_are_recorded_without_their_credentials_are_named_again(run: Run) -> None:
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
    found = audit(run.folder, [first, second])
    assert found.exact
    assert (found.expected, found.trained_once) == (12, 11)
    assert [row.shard for row in found.quarantined_rows] == [f"{moved}/source-1-0.tar"]
    for wrong in ([first], [second, first], [f"{tmp_path}/moved/*.tar"]):
        with pytest.raises(AuditError, match=r"--shards: .*tar is no shard of the run; where its data was"):
            audit(run.folder, wrong)


def test_planted_losses_and_repetitions_are_found_as_ranges_of_their_shard_and_pass(run: Run) -> None:
    lost = {(0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 2, 8), (0, 0, 1, 0)}
    run.attempt(0, run.steps(2, without=lost))
    found = audit(run.folder)
    assert not found.exact
    first = min(step for step, (rows,) in run.steps().items() if lost & set(rows))
    assert summary(run) == {"expected": 40, "trained_once": 36, "missed": 4, "differs": first}
    missed = {("source-0-1.tar", 0): [(0, 0)], ("source-0-2.tar", 1): [(3, 4), (8, 8)]}
    assert named(found.missed_rows) == missed

    in_one_step: list[Row] = [(0, 1, 2, 8)] * 300
    again: list[Row] = [(0, 0, 0, 6), (0, 0, 0, 5), (0, 0, 0, 5)]
    run.attempt(0, run.steps(2) | {8: [in_one_step, again]})
    found = audit(run.folder)
    assert not found.exact
    assert summary(run) == {"expected": 40, "trained_once": 37, "repeated": 3, "differs": 8}
    repeated = {("source-0-0.tar", 0): [(5, 6)], ("source-0-2.tar", 1): [(8, 8)]}
    assert named(found.repeated_rows) == repeated


def test_rows_that_two_steps_exchanged_or_another_seed_or_buffer_drew_differ_from_the_order(run: Run) -> None:
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
    found = audit(run.folder)
    assert not found.exact
    assert found.first_difference
    for rows, of in ((found.first_difference.lacks, row), (found.first_difference.extra, other)):
        assert named(rows) == {(f"source-0-{of[2]}.tar", of[1]): [(of[3], of[3])]}


def test_work_that_a_crash_threw_away_is_neither_missed_nor_repeated_whoever_goes_on(run: Run) -> None:
    steps = run.steps(2)
    assert list(steps) == [1, 2, 3, 4, 5, 6, 7]
    run.attempt(0, upto(steps, 6))
    run.attempt(1, {5: steps[7][::-1], 6: steps[6]}, from_step=4)  # in another order, and thrown away too
    run.attempt(2, after(run.steps(3), 3), from_step=3)
    assert summary(run) == EXACT
    run.attempt(3, after(run.steps(1), 5), from_step=5)
    assert audit(run.folder).notes == ()
    assert summary(run) == EXACT


def test_steps_that_a_later_attempt_did_not_do_again_are_missed_and_done_twice_are_repeated(run: Run) -> None:
    steps = run.steps(2)
    run.attempt(0, upto(steps, 4))
    run.attempt(1, after(steps, 5), from_step=4)
    assert summary(run) == {"expected": 40, "trained_once": 34, "missed": 6, "differs": 5}
    run.attempt(1, after(steps, 3), from_step=4)
    assert summary(run) == {"expected": 40, "trained_once": 34, "repeated": 6, "differs": 4}
    run.attempt(1, {4: steps[5]} | after(steps, 2), from_step=4)
    assert summary(run)["differs"] == 4


def test_a_ledger_that_a_kill_cut_or_that_is_gone_gives_the_steps_that_it_holds(run: Run) -> None:
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
    assert audit(run.folder).notes == ("0001-00000.jsonl was cut before its first line was whole",)
    run.ledger(1, 0).unlink()
    run.ledger(0, 1).unlink()
    assert audit(run.folder).notes == ("attempt 0: no ledger of rank 1",)
    lost = sum(len(of[1]) for of in steps.values())
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


def test_rows_set_aside_and_filtered_are_accounts_of_their_own(run: Run) -> None:
    bad = [(0, 0, 1, 1), (0, 1, 1, 1), (0, 1, 2, 0)]
    small = [row for row in ROWS if row[2] == 0 and row[3] == 2]
    run.attempt(0, run.steps(2, without=bad), filtered=small)
    run.quarantine(*bad[:2])
    assert summary(run).items() > {"trained_once": 35, "filtered": 2, "quarantined": 2, "missed": 1}.items()
    run.quarantine(bad[2], key="0000", reason="no image")
    found = audit(run.folder)
    assert found.exact
    assert summary(run) == {"expected": 40, "trained_once": 35, "filtered": 2, "quarantined": 3}
    listed = [(Path(row.shard).name, *list(vars(row).values())[1:]) for row in found.quarantined_rows]
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
        ("source-0-0.tar", 2, ((0, 0),), "the run was not to visit it"),
        ("source-0-1.tar", 0, ((4, 5),), "its tar has 4 rows"),
        ("shard 3 of source 0", 0, ((0, 0),), "the run was not to visit it"),
        ("shard 0 of source 5", 0, ((0, 0),), "the run was not to visit it"),
    }


def cut_shard(run: Run, at: int) -> None:
    """Cut the last shard in its group 4, of which `at` bytes stay: a header, a body, a header, a body of 512 each."""
    run.sources[0][2].write_bytes(tar_bytes(keys(9))[: 4 * 2048 + at])


@pytest.mark.parametrize(
    ("at", "whole"),
    [(512, 4), (1000, 4), (1200, 4), (2048, 5)],
    ids="header body next none".split(),
)
def test_the_unreadable_rest_of_a_cut_tar_is_one_row_that_must_be_set_aside(
    run: Run, at: int, whole: int
) -> None:
    cut_shard(run, at)
    run.attempt(0, run.steps(2))
    run.quarantine((0, 0, 2, whole), (0, 1, 2, whole), key="", reason="broken tar")
    rows = len([row for row in ROWS if row[2] < 2 or row[3] < whole])
    assert summary(run) == {"expected": rows + 2, "trained_once": rows, "quarantined": 2}
    (run.folder / "quarantine.jsonl").unlink()
    assert {name for name, _ in named(audit(run.folder).missed_rows)} == {"source-0-2.tar"}


def test_a_rest_that_was_trained_on_or_begins_before_the_cut_or_in_a_whole_tar_is_unknown(run: Run) -> None:
    cut_shard(run, 2048)
    steps = run.steps(2)
    steps[7][0].append((0, 0, 2, 5))
    run.attempt(0, steps)
    run.quarantine((0, 1, 2, 3), (0, 1, 0, 6), key="", reason="broken tar")
    readable = "set aside as the unreadable rest: it is readable"
    assert unknown(run) == {
        ("source-0-2.tar", 0, ((5, 5),), "trained once, but it is the unreadable rest of its tar"),
        ("source-0-2.tar", 1, ((3, 3),), readable),
        ("source-0-0.tar", 1, ((6, 6),), readable),
    }


def test_of_weighted_sources_the_visits_of_the_schedule_are_expected(tmp_path: Path) -> None:
    """The second of the two is gone through oftener."""
    run = Run.of(tmp_path, [5] * 5, [3, 4] * 2, weights=(1.0, 2.0), epochs=3, seed=7)
    steps = run.steps(2)
    rows = [row for of in steps.values() for of_rank in of for row in of_rank]
    assert max(row[1] for row in rows if row[0] == 1) > max(row[1] for row in rows if row[0] == 0)
    run.attempt(0, steps)
    assert summary(run) == {"expected": len(rows), "trained_once": len(rows)}
    run.attempt(0, run.steps(2, without=rows[-1:]))
    source, pass_, shard, index = rows[-1]
    (lost,) = audit(run.folder).missed_rows
    assert (Path(lost.shard).name, lost.source, lost.pass_) == (f"source-{source}-{shard}.tar", source, pass_)
    assert lost.ranges == ((index, index),)


def test_an_unfinished_run_says_so_and_what_it_has_not_trained_on_or_recorded_is_missed(run: Run) -> None:
    (run.folder / "complete.json").unlink()
    steps = run.steps(2)
    last = steps[5][0].pop()  # set aside since the newest checkpoint: that stands nowhere yet
    run.attempt(0, upto(steps, 5))
    (note,) = audit(run.folder).notes
    assert note == "the run is not complete: rows that it has not trained on yet count as missed"
    for step, differs in ((4, {}), (5, {"differs": 5})):
        (run.folder / f"step-{step:08d}").mkdir()
        run.write(f"step-{step:08d}/manifest.json", {})
        assert summary(run) == {"expected": 40, "trained_once": 29, "missed": 11} | differs
    run.quarantine(last)
    assert summary(run) == {"expected": 40, "trained_once": 29, "missed": 10, "quarantined": 1}


def test_a_broken_tar_whose_end_an_unfinished_run_has_not_come_to_is_not_judged(run: Run) -> None:
    cut_shard(run, 1000)  # whether the group that it breaks in has a place is known where it breaks
    (run.folder / "complete.json").unlink()
    run.attempt(0, upto(run.steps(2), 2))
    assert audit(run.folder).order == "exact"


def test_what_is_lost_of_shards_is_told_though_every_row_that_is_there_was_trained_on(tmp_path: Path) -> None:
    run = Run.of(tmp_path, [5, 4, 3], epochs=1)
    run.attempt(0, run.steps())
    assert audit(run.folder).lost == ()
    zeros, short, stats = run.sources[0]
    zeros.write_bytes(zeros.read_bytes() + bytes(100_000))
    run.quarantine((0, 0, 0, 5), key="", reason="broken tar")
    short.with_name("index.json").write_text(json.dumps({"shards": [{"name": short.name, "samples": 6}]}))
    stats.with_name(f"{stats.stem}_stats.json").write_text('{"successes": 2}')
    run.write("losses.json", {"unreadable": {"/gone.tar": "no tar: a Git LFS pointer"}})
    found = audit(run.folder)
    assert found.exact
    told = [(Path(of.shard).name, of.samples) for of in found.lost]
    assert told == [("gone.tar", 0), (zeros.name, 0), (short.name, 2)]
    said = "\n".join(lines(found, 20))
    assert " quarantined=1 lost_shards=3 order=exact\n" in said
    assert f"lost        {short}: 4 of 6 samples that index.json has recorded" in said
    assert f"lost        {zeros}: broken, 1" in said
