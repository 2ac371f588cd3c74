"""Compare the speed of `sclip evaluate` on retrieval with a loop of open_clip's own parts.

Both sides get the same JPEG files (generated scenes), captions, and towers with random weights and without a knowledge
encoder. sclip's side includes everything from the files to scores with intervals. The peer is a loop as open_clip's
users write it: a DataLoader with one process per core, and open_clip's preprocessing and tokenizer.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sclip.benchmark.captions import CaptionsError, generated, read
from sclip.benchmark.machine import machine
from sclip.benchmark.rounds import BenchmarkError, in_turns
from sclip.benchmark.table import Line, Table, spread
from sclip.config import EvaluateConfig
from sclip.evaluate.benchmarks import About
from sclip.evaluate.features import Here
from sclip.evaluate.picture import Picture
from sclip.evaluate.retrieval import Captioned, Retrieval
from sclip.evaluate.runner import facts, measure
from sclip.inference.open_model import open_model
from sclip.inference.scorer import Scorer
from sclip.model import ModelError, build_model
from sclip.prepare.scenes.picture import jpeg
from sclip.prepare.scenes.scene import FAMILIES, draw_scene
from sclip.seeding import generator

OURS, PEER = "sclip evaluate", "a loop of open_clip's parts"
CAPTIONS = 5
_BATCH = EvaluateConfig().batch_size
_FIRST = 10

Seconds = tuple[float, float]
"""(wall-clock time, CPU time of this process and of its child processes that have ended)."""


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    add = arguments.add_argument
    add("--model", default="scenes-conv", help="architecture, with random weights (default: scenes-conv)")
    add("--images", type=int, default=5000, help="images, each with five captions (default: 5000)")
    add("--captions", type=Path, metavar="FILE", help="one a line, or COCO's .json (default: generated ones)")
    add("--side", type=int, default=256, help="height and width of an image file in pixels (default: 256)")
    add("--rounds", type=int, default=3, help="measured rounds (default: 3)")


def run(options: argparse.Namespace, on_round: Callable[[int], None]) -> Table:
    """Measure both sides in turns. Raises BenchmarkError for errors that the user can fix."""
    if options.images < _FIRST or options.rounds < 1:
        raise BenchmarkError(f"--images: {_FIRST} or more; --rounds: 1 or more")
    needed = CAPTIONS * options.images
    try:
        scorer = open_model(f"{options.model}:")
        pool = read(options.captions) if options.captions else generated(needed + needed // 4)
    except (CaptionsError, ModelError, OSError) as error:
        raise BenchmarkError(str(error)) from error
    texts = list(dict.fromkeys(pool))[:needed]  # no repeats: sclip encodes equal captions once
    if len(texts) < needed:
        raise BenchmarkError(f"{len(texts):,} different captions are too few for {options.images:,} images")
    with tempfile.TemporaryDirectory() as folder:
        images = drawn(Path(folder), texts, options.side)
        calls = {OURS: partial(ours, scorer), PEER: partial(peer, _with_plain_attention(scorer))}
        for call in calls.values():  # a first call is slower and does not count
            call(images[:_FIRST])
        sides = {name: partial(_timed, call, images) for name, call in calls.items()}
        *_, seconds = in_turns(sides, options.rounds, on_round)
    captions = f"{len(texts):,} captions, {options.captions or 'generated'}"
    return Table(
        [_line(name, len(images) + len(texts), seconds) for name in sides],
        {
            "samples": f"{len(images):,} images of {options.side} x {options.side} pixels and {captions}",
            "model": f"{options.model}, random weights, {torch.get_num_threads()} thread of torch",
            **machine(["torch", "open_clip_torch", "pillow"]),
        },
    )


def ours(scorer: Scorer, images: Sequence[Captioned]) -> dict[str, float]:
    """Evaluate retrieval as `sclip evaluate` does; return R@1, R@5 and R@10 in both directions."""
    task = Retrieval(About("scenes", "retrieval", "generated scenes"), images)
    encoder = Here(scorer, _BATCH)
    (result,) = measure(encoder, [task], "", facts(scorer, ""), reads_whole=scorer.reads_whole).results
    return {name: score.value for name, score in result.scores.items()}


class _Files(Dataset[Tensor]):
    def __init__(self, images: Sequence[Captioned], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self._images, self._preprocess = images, preprocess

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._preprocess(Image.open(self._images[index].picture.path))


@torch.inference_mode()
def peer(scorer: Scorer, images: Sequence[Captioned]) -> dict[str, float]:
    """Evaluate retrieval with open_clip's towers, preprocessing and tokenizer; return R@1, R@5 and R@10 as `ours`."""
    clip = scorer.model.clip
    preprocess = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    loader = DataLoader(_Files(images, preprocess), _BATCH, num_workers=len(os.sched_getaffinity(0)))
    image_features = torch.cat([clip.encode_image(pixels, normalize=True) for pixels in loader])
    tokenizer = open_clip.get_tokenizer(scorer.model.config.name)
    texts = [caption for image in images for caption in image.captions]
    batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    text_features = torch.cat([clip.encode_text(tokenizer(batch), normalize=True) for batch in batches])
    owner = torch.tensor([row for row, image in enumerate(images) for _ in image.captions])
    similarity = image_features @ text_features.T
    image_hits = owner[similarity.topk(_FIRST, dim=1).indices] == torch.arange(len(images))[:, None]
    text_hits = similarity.T.topk(_FIRST, dim=1).indices == owner[:, None]
    return {
        f"{way}_r{k}": hits[:, :k].any(1).double().mean().item()
        for way, hits in (("image_to_text", image_hits), ("text_to_image", text_hits))
        for k in (1, 5, 10)
    }


def drawn(folder: Path, texts: Sequence[str], side: int) -> list[Captioned]:
    """Write one JPEG of `side` x `side` pixels for every five texts: a random scene, with these texts as captions."""
    images = []
    for number in range(len(texts) // CAPTIONS):
        scene = draw_scene(generator("benchmark", 0, 0, str(number)), FAMILIES["a"], held_out=False)
        file = folder / f"{number}.jpg"
        file.write_bytes(jpeg(scene, side))
        own = texts[CAPTIONS * number : CAPTIONS * (number + 1)]
        images.append(Captioned(file.stem, Picture(str(file)), tuple(own)))
    return images


def _with_plain_attention(scorer: Scorer) -> Scorer:
    """Return a copy of the scorer with open_clip's own attention: sclip's lean attention would speed up the peer."""
    model = build_model(replace(scorer.model.config, attention="plain"), load_weights=False)
    model.load_state_dict(scorer.model.state_dict())
    return scorer.with_model(model)


def _timed(side: Callable[..., object], images: Sequence[Captioned], _: int) -> Seconds:
    def cpu_s() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    started, cpu_before = time.perf_counter(), cpu_s()
    side(images)
    return time.perf_counter() - started, cpu_s() - cpu_before


def _line(name: str, samples: int, seconds: dict[str, list[Seconds]]) -> Line:
    words, figures = [], {}
    for index, unit in enumerate(("s", "CPU s")):
        rates = [samples / times[index] for times in seconds[name]]
        ratios = [other[index] / own[index] for own, other in zip(seconds[name], seconds[PEER], strict=True)]
        words.append(f"{spread(rates, 0)} samples/{unit}, {spread(ratios)} x the peer")
        figures[f"per_{unit}".replace(" ", "_")] = rates
    return Line(
        name, PEER if name == OURS else "", "1.0 x" if name == OURS else "", "; ".join(words), figures
    )
