"""Small files of every benchmark in its authors' format, in the folders where the suites look for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclip.evaluate.readers.sugarcrepe import KINDS
from support.pictures import speckled

COLOURS = ("red", "green", "blue", "white")


def written(file: Path, content: Any) -> Path:
    """Write a string as it is and anything else as JSON; a `.jsonl` file gets one line per entry."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if ".jsonl" in file.name and not isinstance(content, str):
        content = "".join(f"{json.dumps(line)}\n" for line in content)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def table(file: Path, rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)
    return file


def aro(root: Path, cases: int) -> None:
    entries = [
        {
            "image_path": f"{n}.jpg", "attributes": ["red", "blue"], "relation_name": "on",
            "bbox_x": 1, "bbox_y": 2, "bbox_w": 30, "bbox_h": 40,
            "true_caption": f"cup {n} is on the table", "false_caption": f"the table is on cup {n}",
        }
        for n in range(cases)
    ]  # fmt: skip
    for kind in ("relation", "attribution"):
        written(root / "aro" / f"visual_genome_{kind}.json", entries)
    for folder, file, other in (
        ("coco", "coco_karpathy_test", "dataset_coco"), ("flickr30k", "flickr30k_test", "dataset_flickr30k"),
    ):  # fmt: skip
        texts = [f"a small dog {n} chases the red ball over the grass" for n in range(cases)]
        blip = [{"image": f"{n}.jpg", "caption": [text]} for n, text in enumerate(texts)]
        written(root / folder / f"{file}.json", blip)
        images = [
            {"filename": f"{n}.jpg", "split": "test", "sentences": [{"raw": t}]} for n, t in enumerate(texts)
        ]
        written(root / folder / f"{other}.json", {"images": images})


def sugarcrepe(root: Path, cases: int) -> None:
    for kind in KINDS:
        entries = {
            str(n): {"filename": f"{n}.jpg", "caption": f"{kind} {n}", "negative_caption": f"{n} {kind}"}
            for n in range(cases)
        }
        written(root / "sugarcrepe" / f"{kind}.json", entries)


def winoground(root: Path, cases: int) -> None:
    lines = [
        {
            "id": n,
            "image_0": f"a{n}",
            "image_1": f"b{n}",
            "caption_0": f"{n} plants",
            "caption_1": f"plants {n}",
        }
        for n in range(cases)
    ]
    written(root / "winoground" / "examples.jsonl", lines)


def classes(root: Path, cases: int) -> None:
    for n, wnid in enumerate(("n01440764", "n01443537")):
        (root / "imagenet" / "val" / wnid).mkdir(parents=True)
        (root / "imagenet" / "val" / wnid / f"{n}.png").write_bytes(speckled(n))


def sugarcrepe_pp(root: Path, cases: int) -> None:
    for kind in ("swap_obj", "swap_att", "replace_obj", "replace_att", "replace_rel"):
        entries = [
            {
                "id": 3 * n, "filename": f"{n // 2:012d}.jpg",
                "caption": f"a {COLOURS[n % 4]} cup by bowl {n}, {kind}",
                "caption2": f"by bowl {n} stands a {COLOURS[n % 4]} cup, {kind}",
                "negative_caption": f"a {COLOURS[n % 3]} bowl by cup {n}, {kind}",
            }
            for n in range(cases)
        ]  # fmt: skip
        written(root / "sugarcrepe_pp" / f"{kind}.json", entries)


def whatsup(root: Path, cases: int) -> None:
    for file, relations in (
        ("controlled_images", ("left_of", "right_of", "on", "under")),
        ("controlled_clevr", ("left_of", "right_of", "in-front_of", "behind")),
    ):
        words = {name: name.replace("in-front", "in front").replace("_", " ") for name in relations}
        entries = [
            {
                "image_path": f"data/{file}/mug{n}_{true}_tray.jpeg",
                "caption_options": [
                    f"mug {n} {words[name]} a tray" for name in (true, *(r for r in relations if r != true))
                ],
            }
            for n in range(cases) for true in relations
        ]  # fmt: skip
        written(root / "whatsup" / f"{file}_dataset.json", entries)
    for name, form, two in (
        ("coco_qa_one_obj", "dog {} on the {}", ("left", "right")),
        ("coco_qa_two_obj", "dog {} {} a cat", ("above", "below")),
        ("vg_qa_one_obj", "dog {} at the {}", ("top", "bottom")),
        ("vg_qa_two_obj", "dog {} {} a cat", ("behind", "in front of")),
    ):
        rows = [[n, *(form.format(n, word) for word in two[:: 1 - 2 * (n % 2)])] for n in range(cases)]
        written(root / "whatsup" / f"{name}.json", rows)


def bivlc_table(cases: int) -> pa.Table:
    pictures = [[{"bytes": speckled(2 * n + side), "path": None} for n in range(cases)] for side in (0, 1)]
    return pa.table(
        {
            "image": pictures[0], "negative_image": pictures[1],
            "caption": [f"a man throws ball {n}" for n in range(cases)],
            "negative_caption": [f"ball {n} throws a man" for n in range(cases)],
            "type": [("replace", "swap", "add")[n % 3] for n in range(cases)], "subtype": ["obj"] * cases,
        }
    )  # fmt: skip


def bivlc(root: Path, cases: int) -> None:
    (root / "bivlc" / "data").mkdir(parents=True)
    pq.write_table(bivlc_table(cases), root / "bivlc" / "data" / "test-00000-of-00001.parquet")


def colorswap(root: Path, cases: int) -> None:
    entries = [
        {
            "id": n, "image_1": f"images/img_{n}_1.png", "image_2": f"images/img_{n}_2.png",
            "caption_1": f"a red cup and blue bowl {n}", "caption_2": f"a blue cup and red bowl {n}",
        }
        for n in range(cases)
    ]  # fmt: skip
    written(root / "colorswap" / "test.json", entries)


def negbench(root: Path, cases: int) -> None:
    folder = root / "negbench" / "images"
    columns = [
        "image_path",
        *(f"caption_{number}" for number in range(4)),
        "correct_answer",
        "correct_answer_template",
    ]
    for name in ("COCO_val_mcq", "VOC2007_mcq"):
        rows = [
            (f"/data/{name}/{n}.jpg", f"a dog, no cat {n}", f"a cat {n}", f"no dog {n}", f"a cat, no dog {n}", 0,
             ("positive", "negative", "hybrid")[n % 3])
            for n in range(cases)
        ]  # fmt: skip
        table(folder / f"{name}_llama3.1_rephrased.csv", [columns, *rows])
    for name, ending in (
        ("COCO_val_retrieval", ""),
        ("COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true", " without a cat"),
    ):
        rows = [(f"/data/{n}.jpg", [f"a dog {n}{ending}", f"{n} 'dogs'{ending}"]) for n in range(cases)]
        table(folder / f"{name}.csv", [("filepath", "captions"), *rows])


def mmvp(root: Path, cases: int) -> None:
    count = min(cases, 15)
    rows = [
        (n + 1, f"Pattern {n // (2 * count)}", f"{('an open', 'a closed')[n % 2]} door {n // 2}")
        for n in range(9 * 2 * count)
    ]
    table(root / "mmvp_vlm" / "Questions.csv", [("Question ID", "Type", "Statement"), *rows])


def hard_positives(root: Path, cases: int) -> None:
    for file in ("visual_genome_attribution", "vl_checklist_attributes", "vl_checklist_relations"):
        for folder, word in (("data", "in"), ("swapped_data", "within")):
            box = {f"bbox_{side}": 9 for side in "xywh"} if "visual" in file else {}
            entries = [
                {
                    "image_path": f"data/VG_100K/{n}.jpg", "true_caption": f"chair {word} tent {n}, {file}",
                    "false_caption": f"chair out of tent {n}, {file}", **box,
                }
                for n in range(cases)
            ]  # fmt: skip
            written(root / "hard_positives" / folder / f"{file}.json", entries)


def long_captions(root: Path, cases: int) -> None:
    longer = " ".join(f"Behind the {colour} cup there stands another one." for colour in COLOURS * 4)
    for n in range(cases):
        written(root / "Urban1k" / "caption" / f"{n:03d}.txt", f"Cup {n}. {longer}\n")
    lines = [
        {
            "example_id": f"{split}_{n}", "split": split, "image_file": f"{split}_{n}.jpg",
            "description": f"Cup {n} of {split}. {longer}",
        }
        for n in range(cases) for split in ("train", "test")
    ]  # fmt: skip
    written(root / "docci" / "docci_descriptions.jsonlines", lines)


NEWER: Mapping[str, Callable[[Path, int], None]] = {
    "sugarcrepe-pp": sugarcrepe_pp, "whatsup": whatsup, "bivlc": bivlc, "colorswap": colorswap,
    "negbench": negbench, "mmvp": mmvp, "hard-positives": hard_positives, "urban1k": long_captions,
    "docci": long_captions,
}  # fmt: skip
"""Maps a prefix of benchmark names to the function that writes their files."""
EVERY = (aro, sugarcrepe, winoground, classes, *dict.fromkeys(NEWER.values()))
