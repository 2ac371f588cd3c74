"""Newer benchmarks in their authors' formats are read, malformed files are refused, and one model runs them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclip.config import EvaluateConfig
from sclip.evaluate import runner, suite
from sclip.evaluate.benchmarks import About, BenchmarkDataError, Task, located
from sclip.evaluate.readers import hard_positives, whatsup
from support import benchmark_files
from support.benchmark_files import written
from support.pictures import speckled
from support.small_model import small_scorer

ABOUT = About("made", "kind", "What is asked.")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for write in benchmark_files.EVERY:
        write(tmp_path, 2)
    return tmp_path


def task_of(root: Path, name: str) -> Any:
    (entry,) = [entry for entry in suite.read("all", root) if entry.name == name]
    return entry.task()


def with_pictures(root: Path) -> list[Task]:
    """Write the pictures of all benchmarks (five that repeat) and return the benchmarks' tasks."""
    tasks = [entry.task() for entry in suite.read("all", root)]
    for number, path in enumerate({p.path for task in tasks for p in task.pictures() if p.sample is None}):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(speckled(number % 5))
    return tasks


def test_the_suite_all_runs_over_the_authors_files_of_every_benchmark(files: Path) -> None:
    with_pictures(files)
    config = EvaluateConfig(suite="all", root=str(files), batch_size=64)
    evaluation = runner.evaluate(small_scorer(), config)
    assert [r.name for r in evaluation.results] == [entry.name for entry in suite.read("all", files)]
    for result in evaluation.results:
        assert all(0 <= s.low <= s.high <= 1 and 0 <= s.value <= 1 for s in result.scores.values()), (
            result.name
        )
        assert result.headline in result.scores
    notes = {result.name: result.notes for result in evaluation.results}
    assert notes["urban1k"] == ["2 of 2 captions (100.0%) are longer than the model reads, and were cut"]
    assert notes["whatsup-a"] == []


def test_missing_pictures_are_counted_and_a_partial_run_keeps_the_remaining_cases(files: Path) -> None:
    tasks = [task for task in with_pictures(files) if task.about.name == "whatsup-a"]
    Path(tasks[0].pictures()[1].path).unlink()
    with pytest.raises(
        BenchmarkDataError, match=r"whatsup-a: 1 of 8 pictures .*/mug0_right_of_tray\.jpeg: no such"
    ):
        runner.prepared(tasks)
    (kept,) = runner.prepared(tasks, partial=True)
    assert kept.about.notes == ("partial: 7 of 8 cases, not comparable with published figures",)


def test_a_picture_is_located_by_the_end_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K" / "1.jpg").touch()
    assert located(tmp_path, "data/VG_100K/1.jpg") == tmp_path / "VG_100K" / "1.jpg"
    assert located(tmp_path, "data/VG_100K/2.jpg") == tmp_path / "data/VG_100K/2.jpg"
    absolute = tmp_path / "VG_100K" / "1.jpg"
    assert located(tmp_path / "elsewhere", str(absolute)) == absolute
    assert located(tmp_path, "/data/VG_100K/1.jpg") == absolute
    assert located(tmp_path, "/data/VG_100K/2.jpg") == tmp_path / "2.jpg"


def test_each_reader_gives_the_cases_of_its_benchmark(files: Path) -> None:
    itt, tot = task_of(files, "sugarcrepe-pp"), task_of(files, "sugarcrepe-pp-text")
    assert (itt.cases[1].name, itt.cases[1].picture.path) == (
        "swap_obj/3", str(files / "coco/val2017/000000000000.jpg"),
    )  # fmt: skip
    assert (tot.cases[0].same, tot.cases[0].image) == (itt.cases[0].true, "000000000000.jpg")
    controlled = task_of(files, "whatsup-b")
    assert [case.group for case in controlled.cases[:4]] == ["left_of", "right_of", "in-front_of", "behind"]
    assert controlled.jointly["pair"][:2] == [("mug0, tray", ["0", "1"]), ("mug0, tray", ["2", "3"])]
    assert controlled.jointly["set"] == [("mug0, tray", list("0123")), ("mug1, tray", list("4567"))]
    assert [task_of(files, f"whatsup-{name}").cases[1].group for name in ("coco-one", "coco-two", "vg-two")] == [
        "right", "below", "front",
    ]  # fmt: skip
    first, second = task_of(files, "bivlc").pictures()[:2]
    assert (first.sample, first.image != second.image) == (0, True)
    choice = task_of(files, "negbench-coco")
    assert (choice.ties_win, choice.cases[0].true, len(choice.cases[0].false)) == (True, "a dog, no cat 0", 3)
    assert task_of(files, "negbench-coco-negated").images[1].captions == (
        "a dog 1 without a cat", "1 'dogs' without a cat",
    )  # fmt: skip
    mmvp = task_of(files, "mmvp-vlm").cases[0]
    assert mmvp.captions == ("a photo of an open door 0", "a photo of a closed door 0")
    assert [Path(picture.path).name for picture in mmvp.pictures] == ["1.jpg", "2.jpg"]
    swap = task_of(files, "hard-positives-swap").cases[0]
    assert (swap.picture.box, swap.true[1][:17]) == ((9, 9, 18, 18), "chair within tent")
    assert task_of(files, "hard-positives-relation").cases[0].picture.box is None
    assert [image.name for image in task_of(files, "docci").images] == ["test_0", "test_1"]


def altered(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    return lambda file: written(file, change(json.loads(file.read_text())))


def without(field: str) -> Callable[[Path], object]:
    return altered(lambda entries: [{k: v for k, v in entry.items() if k != field} for entry in entries])


def text(content: str) -> Callable[[Path], object]:
    return lambda file: written(file, content)


def columns(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    return lambda file: pq.write_table(change(benchmark_files.bivlc_table(2)), file)


def with_images(table: pa.Table, images: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index("image"), "image", images)


NEG = "negbench/images/COCO_val_mcq_llama3.1_rephrased.csv"
NEGATED = "negbench/images/COCO_val_retrieval.csv"
BIVLC = "bivlc/data/test-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("name", "file", "change", "expected"),
    [
        ("sugarcrepe-pp", "sugarcrepe_pp/swap_obj.json", without("caption2"), "case 0: no field 'caption2'"),
        ("sugarcrepe-pp", "sugarcrepe_pp/swap_obj.json", altered(lambda e: {"0": e[0]}), "must hold a list of"),
        ("sugarcrepe-pp-text", "sugarcrepe_pp/swap_att.json", Path.unlink, "the folder lacks swap_att.json"),
        ("sugarcrepe-pp", "sugarcrepe_pp/swap_obj.json", altered(lambda e: [e[0]] * 2), "two cases have the id"),
        ("whatsup-a", "whatsup/controlled_images_dataset.json", without("caption_options"), "no field 'caption_o"),
        ("whatsup-a", "whatsup/controlled_images_dataset.json",
         altered(lambda e: [e[0] | {"image_path": "a.jpg"}]), "image_path='a.jpg': must be called OBJECT_RELATION"),
        ("whatsup-coco-one", "whatsup/coco_qa_one_obj.json", altered(lambda e: [e[0][:2]]), "must be [image id, true"),
        ("whatsup-vg-one", "whatsup/vg_qa_one_obj.json", text("{}"), "must hold a list of [image id"),
        ("bivlc", BIVLC, columns(lambda t: t.drop_columns(["negative_image"])), "lacks the columns negative_image,"),
        ("bivlc", BIVLC, columns(lambda t: with_images(t, pa.array(["a", "b"]))),
         "column image must hold pictures, not string"),
        ("bivlc", BIVLC, text("PAR1"), "a broken Parquet file"),
        ("bivlc", BIVLC, Path.unlink, "a folder without Parquet files"),
        ("colorswap", "colorswap/test.json", without("image_2"), "case 0: no field 'image_2'"),
        ("negbench-coco", NEG, text("image_path,caption_0\na,b\n"), "lacks the columns caption_1, correct_answer,"),
        ("negbench-coco", NEG, text("image_path,caption_0,caption_1,correct_answer\na,b,c,2\n"), "correct_answer=2"),
        ("negbench-coco", NEG, text("image_path,caption_0,caption_1,correct_answer\na,b,c\n"), "more or fewer"),
        ("negbench-coco", NEG, text("image_path,caption_0,caption_1,correct_answer\n/,b,c,0\n"),
         "case 0: '/' must be the path of a picture"),
        ("negbench-coco-plain", NEGATED, text('filepath,captions\na,"open()"\n'), "case 0: malformed node"),
        ("mmvp-vlm", "mmvp_vlm/Questions.csv", text("id,type,text\n1,a,b\n"), "two rows for each pair"),
        ("mmvp-vlm", "mmvp_vlm/Questions.csv", text("id,type,text\n2,a,b\n3,a,b\n"), "ids 2 and 3: the first"),
        ("mmvp-vlm", "mmvp_vlm/Questions.csv", text("id,type,text\n" + 2 * "1,a,b\n2,a,c\n"), "cases have the id 1"),
        ("hard-positives-swap", "hard_positives/swapped_data/visual_genome_attribution.json", Path.unlink, "no such"),
        ("hard-positives-swap", "hard_positives/swapped_data/visual_genome_attribution.json",
         altered(lambda e: e[:1]), "has 1 cases, but"),
        ("hard-positives-swap", "hard_positives/swapped_data/visual_genome_attribution.json",
         altered(lambda e: e[::-1]), "image_path='data/VG_100K/1.jpg'"),
        ("urban1k", "Urban1k/caption/000.txt", text("\nlater"), "the first line must be a caption"),
        ("docci", "docci/docci_descriptions.jsonlines", text("{}"), "case 0: no field 'split'"),
        ("docci", "docci/docci_descriptions.jsonlines", text(""), "must hold a line for each case"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, name: str, file: str, change: Callable[[Path], object], expected: str
) -> None:
    next(write for start, write in benchmark_files.NEWER.items() if name.startswith(start))(tmp_path, 2)
    change(tmp_path / file)
    with pytest.raises(BenchmarkDataError) as raised:
        task_of(tmp_path, name)
    message = str(raised.value)
    assert expected in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_row_without_a_picture_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    benchmark_files.bivlc(tmp_path, 2)
    table = benchmark_files.bivlc_table(2)
    pictures = [{"bytes": None, "path": None}, table["image"][1].as_py()]
    pq.write_table(with_images(table, pa.array(pictures)), tmp_path / BIVLC)
    config = EvaluateConfig(suite=str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("bivlc: {kind: bivlc, file: bivlc}\n")
    with pytest.raises(BenchmarkDataError, match=r"bivlc: 1 of 4 pictures .*#image0: row without image"):
        runner.evaluate(small_scorer(), config)


def test_hard_positives_note_false_captions_that_differ_between_files(tmp_path: Path) -> None:
    benchmark_files.hard_positives(tmp_path, 2)
    file = tmp_path / "hard_positives" / "data" / "vl_checklist_relations.json"
    altered(lambda entries: [entries[0] | {"false_caption": "another"}, entries[1]])(file)
    assert hard_positives.read(ABOUT, file).about.notes == (
        "1 of 2 cases have another false caption in swapped_data; all scores use that one",
    )


def test_a_tie_is_won_if_the_authors_take_the_first_of_equal_scores(tmp_path: Path) -> None:
    benchmark_files.whatsup(tmp_path, 1)
    assert whatsup.coco(ABOUT, tmp_path / "whatsup" / "coco_qa_one_obj.json").ties_win
