"""List where to get each benchmark of the package's suites, with its license and size. sclip downloads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sclip.evaluate.benchmarks import BenchmarkDataError, Task
from sclip.evaluate.picture import missing
from sclip.evaluate.suite import Entry

__all__ = ["SOURCES", "BenchmarkSource", "Completeness", "examined"]


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark's publication and its files."""

    paper: str
    licence: str
    files: tuple[tuple[str, str], ...]
    """(path below the root folder, where to get the content) of each file or folder."""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Published sizes, by a key of `Task.sizes` such as "cases"; a number for each release."""


_ARO = "Yuksekgonul et al., When and why vision-language models behave like bags-of-words, ICLR 2023"
_ARO_PAGE = "github.com/mertyg/vision-language-models-are-bows (its VG_Relation(download=True) fetches it)"
_ARO_LICENCE = "code MIT, Visual Genome CC BY 4.0"
_COCO_LICENCE = "COCO: captions CC BY 4.0, each photograph under its own Creative Commons licence"
_COCO_2014 = ("coco/val2014", "images.cocodataset.org/zips/val2014.zip (the test split is of val2014)")
_COCO_2017 = ("coco/val2017", "images.cocodataset.org/zips/val2017.zip")
_VG_LICENCE = "MIT; Visual Genome CC BY 4.0"
_VG_IMAGES = (
    "visual_genome",
    "images.zip and images2.zip of visualgenome.org: the folders VG_100K and VG_100K_2",
)
_VOC = ("voc2007/JPEGImages", "host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar")
_WHATSUP = (
    "Kamath et al., What's up with vision-language models? Investigating their struggle with spatial reasoning, "
    "EMNLP 2023"
)
_WHATSUP_PAGE = "the folder named in github.com/amitakamath/whatsup_vlms"
_NEGBENCH = "Alhamoud et al., Vision-language models do not understand negation, CVPR 2025"
_NEGATED = "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true"
_NEGBENCH_PAGE = "the folder named in datasets.md of github.com/m1k2zoo/negbench"
_SCPP = (
    "Dumpala et al., SugarCrepe++ dataset: Vision-language model sensitivity to semantic and lexical alterations, "
    "NeurIPS 2024"
)
_SCPP_FILES = ("sugarcrepe_pp", "the five files of data/ in github.com/Sri-Harsha/scpp")
_FLICKR_LICENCE = "Flickr30k: for research, by the form at shannon.cs.illinois.edu/DenotationGraph"
_FLICKR_IMAGES = (
    "flickr30k/flickr30k-images",
    "the archive from the form at shannon.cs.illinois.edu/DenotationGraph",
)
_KARPATHY = (
    "Karpathy and Fei-Fei, Deep visual-semantic alignments for generating image descriptions, CVPR 2015"
)
_KARPATHY_PAGE = "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_BLIP = "storage.googleapis.com/sfr-vision-language-research/datasets"

SOURCES = {
    "vg-relation": BenchmarkSource(
        _ARO, _ARO_LICENCE,
        (("aro/visual_genome_relation.json", _ARO_PAGE), ("aro/images", f"vgr_vga_images.zip, {_ARO_PAGE}")),
        {"cases": (23_937,)},
    ),
    "vg-attribution": BenchmarkSource(
        _ARO, _ARO_LICENCE,
        (("aro/visual_genome_attribution.json", _ARO_PAGE), ("aro/images", f"vgr_vga_images.zip, {_ARO_PAGE}")),
        {"cases": (28_748,)},
    ),
    "coco-order": BenchmarkSource(
        _ARO, _COCO_LICENCE,
        (("coco/coco_karpathy_test.json", f"{_BLIP}/coco_karpathy_test.json"), _COCO_2014),
        {"cases": (25_010,)},
    ),
    "flickr-order": BenchmarkSource(
        _ARO, _FLICKR_LICENCE,
        (("flickr30k/flickr30k_test.json", f"{_BLIP}/flickr30k_test.json"), _FLICKR_IMAGES),
        {"cases": (5_000,)},
    ),
    "sugarcrepe": BenchmarkSource(
        "Hsieh et al., SugarCrepe: Fixing hackable benchmarks for vision-language compositionality, NeurIPS 2023",
        f"MIT; {_COCO_LICENCE}",
        (
            ("sugarcrepe", "the seven files of data/ in github.com/RAIVNLab/sugar-crepe"),
            _COCO_2017,
        ),
        {"cases": (7_511, 7_512)},
    ),
    "sugarcrepe-pp": BenchmarkSource(
        _SCPP, f"CC BY 4.0; {_COCO_LICENCE}", (_SCPP_FILES, _COCO_2017), {"cases": (4_757,)}
    ),
    "sugarcrepe-pp-text": BenchmarkSource(_SCPP, "CC BY 4.0", (_SCPP_FILES,), {"cases": (4_757,)}),
    "winoground": BenchmarkSource(
        "Thrush et al., Winoground: Probing vision and language models for visio-linguistic compositionality, "
        "CVPR 2022",
        "Meta's research licence, which you accept on the dataset's page",
        (
            ("winoground/examples.jsonl", "the dataset facebook/winoground, data/examples.jsonl"),
            ("winoground/images", "the same, data/images.zip"),
        ),
        {"cases": (400,)},
    ),
    **{
        f"whatsup-{name}": BenchmarkSource(
            _WHATSUP, licence, ((f"whatsup/{file}.json", _WHATSUP_PAGE), images), {"cases": sizes}
        )
        for name, file, images, licence, sizes in (
            ("a", "controlled_images_dataset", ("whatsup/controlled_images", _WHATSUP_PAGE), "MIT", (408, 412)),
            ("b", "controlled_clevr_dataset", ("whatsup/controlled_clevr", _WHATSUP_PAGE), "MIT", (408, 412)),
            ("coco-one", "coco_qa_one_obj", _COCO_2017, f"MIT; {_COCO_LICENCE}", (2_247,)),
            ("coco-two", "coco_qa_two_obj", _COCO_2017, f"MIT; {_COCO_LICENCE}", (440,)),
            ("vg-one", "vg_qa_one_obj", ("whatsup/vg_images", _WHATSUP_PAGE), _VG_LICENCE, (1_160,)),
            ("vg-two", "vg_qa_two_obj", ("whatsup/vg_images", _WHATSUP_PAGE), _VG_LICENCE, (291,)),
        )
    },
    "bivlc": BenchmarkSource(
        "Miranda et al., BiVLC: Extending vision-language compositionality evaluation with text-to-image retrieval, "
        "NeurIPS 2024",
        f"MIT; {_COCO_LICENCE}",
        (("bivlc", "the Parquet files of the dataset imirandam/BiVLC"),),
        {"cases": (2_933,)},
    ),
    "colorswap": BenchmarkSource(
        "Burapacheep et al., ColorSwap: A color and word order dataset for multimodal evaluation, ACL Findings 2024",
        "MIT",
        (
            ("colorswap/test.json", "the archive named in github.com/Top34051/colorswap, or stanfordnlp/colorswap"),
            ("colorswap", "the same, data/images.zip unpacked to colorswap/images"),
        ),
        {"cases": (300,)},
    ),
    "mmvp-vlm": BenchmarkSource(
        "Tong et al., Eyes wide shut? Exploring the visual shortcomings of multimodal LLMs, CVPR 2024",
        "MIT",
        (
            ("mmvp_vlm/Questions.csv", "the dataset MMVP/MMVP_VLM"),
            ("mmvp_vlm/MLLM_VLM Images", "the same, a folder for each of the nine patterns"),
        ),
        {"cases": (135,)},
    ),
    **{
        f"negbench-{name}": BenchmarkSource(
            _NEGBENCH, f"MIT; {licence}", ((f"negbench/images/{file}.csv", _NEGBENCH_PAGE), images), sizes
        )
        for name, file, images, licence, sizes in (
            ("coco", "COCO_val_mcq_llama3.1_rephrased", _COCO_2017, _COCO_LICENCE, {"cases": (5_914,)}),
            ("voc", "VOC2007_mcq_llama3.1_rephrased", _VOC, "photographs by Flickr's terms", {"cases": (5_031,)}),
            ("coco-plain", "COCO_val_retrieval", _COCO_2017, _COCO_LICENCE, {"images": (5_000,)}),
            ("coco-negated", _NEGATED, _COCO_2017, _COCO_LICENCE, {"images": (5_000,)}),
        )
    },
    **{
        f"hard-positives-{name}": BenchmarkSource(
            "Kamath et al., The hard positive truth about vision-language compositionality, ECCV 2024",
            "Visual Genome CC BY 4.0; the authors name no licence for the captions",
            (
                (f"hard_positives/data/{file}.json", "github.com/amitakamath/hard_positives"),
                (f"hard_positives/swapped_data/{file}.json", "the same"),
                images,
            ),
            {"cases": (size,)},
        )
        for name, file, images, size in (
            ("swap", "visual_genome_attribution", ("aro/images", f"vgr_vga_images.zip, {_ARO_PAGE}"), 28_748),
            ("attribute", "vl_checklist_attributes", _VG_IMAGES, 10_575),
            ("relation", "vl_checklist_relations", _VG_IMAGES, 16_868),
        )
    },
    "urban1k": BenchmarkSource(
        "Zhang et al., Long-CLIP: Unlocking the long-text capability of CLIP, ECCV 2024",
        "for research, by the dataset's page",
        (("Urban1k", "the dataset BeichenZhang/Urban1k, its archive unpacked: image/ and caption/"),),
        {"images": (1_000,), "captions": (1_000,)},
    ),
    "docci": BenchmarkSource(
        "Onoe et al., DOCCI: Descriptions of connected and contrasting images, ECCV 2024",
        "CC BY 4.0",
        (
            ("docci/docci_descriptions.jsonlines", "google.github.io/docci"),
            ("docci/images", "the same, docci_images.tar.gz"),
        ),
        {"images": (5_000,), "captions": (5_000,)},
    ),
    "coco": BenchmarkSource(
        _KARPATHY, _COCO_LICENCE, (("coco/dataset_coco.json", _KARPATHY_PAGE), _COCO_2014),
        {"images": (5_000,), "captions": (25_000,)},
    ),
    "flickr30k": BenchmarkSource(
        _KARPATHY, _FLICKR_LICENCE,
        (("flickr30k/dataset_flickr30k.json", _KARPATHY_PAGE), _FLICKR_IMAGES),
        {"images": (1_000,), "captions": (5_000,)},
    ),
    "imagenet": BenchmarkSource(
        "Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 2015",
        "for research, by registration at image-net.org",
        (("imagenet/val", "ILSVRC2012_img_val.tar of image-net.org, a folder for each class (n01440764, ..)"),),
        {"images": (50_000,), "classes": (1_000,)},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Completeness:
    """Whether the files of a benchmark are complete."""

    complete: bool
    told: str
    """The benchmark's sizes and faults in words."""


def examined(entry: Entry) -> Completeness:
    """Check the files and pictures of a benchmark. Raises ShardError if a shard cannot be reached."""
    try:
        task = entry.task()
    except BenchmarkDataError as error:
        return Completeness(False, str(error))
    absent = missing(task.pictures())
    pictures = len(set(task.pictures()))
    lines = [", ".join(f"{count:,} {unit}" for unit, count in task.sizes().items())]
    lines += _unlike(entry.name, task)
    if absent:
        lines.append(f"{len(absent):,} of {pictures:,} pictures are missing, the first is {absent[0].path}")
    return Completeness(len(lines) == 1, "; ".join(lines))


def _unlike(name: str, task: Task) -> list[str]:
    if name not in SOURCES:
        return []
    return [
        f"{' or '.join(f'{n:,}' for n in expected)} {unit} are in the published benchmark"
        for unit, expected in SOURCES[name].sizes.items()
        if task.sizes().get(unit) not in expected
    ]
