"""Scorer, benchmark files and shards in, a flat dictionary of scores out.

Every distinct crop and caption of a benchmark is encoded once; what stays in memory is features, not
pictures. Chance is 0.5 for the two choices and about k / candidates for retrieval.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sclip.config import EvaluateConfig
from sclip.data.images import ImageError
from sclip.data.shards import Rejected, Sample, expand, read_shard
from sclip.evaluate import benchmarks, metrics
from sclip.evaluate.benchmarks import BenchmarkError, Case, attribute_cases, relation_cases
from sclip.scorer import Scorer, to_uint8

_log = logging.getLogger(__name__)


def evaluate(
    scorer: Scorer, config: EvaluateConfig, training_shards: Sequence[str] = (), *, caption_field: str = ""
) -> dict[str, float]:
    """Return every score that the config asks for, as "benchmark/score".

    - `relation/accuracy` over all cases that ARO counts, `relation/macro`, ARO's own figure, the mean over
      relations, `relation/cases`;
    - `attribute/accuracy`, `attribute/cases` and, where a pair of attributes has 25 cases, `attribute/macro`,
      ARO's own figure;
    - `retrieval/image_to_text_r1`, `_r5`, `_r10`, `retrieval/text_to_image_r1`, ..., `retrieval/images`,
      `retrieval/captions`. The prefix is `retrieval_on_training_images/` where `config.retrieval` is empty or
      names a shard that was trained on: such a figure says nothing about unseen images.

    Args:
        scorer: the model to measure.
        config: files and shards; what is empty is not measured.
        training_shards: paths or patterns of the shards that the model was trained on.
        caption_field: field of a sample's .json that holds its captions, as in training.

    Raises BenchmarkError or ShardError naming file and case where something cannot be read.
    """
    scores: dict[str, float] = {}
    if config.relation:
        cases = relation_cases(config.relation, config.images)
        scores |= _choice("relation", scorer, cases, config, least_cases=1)
    if config.attribute:
        cases = attribute_cases(config.attribute, config.images)
        scores |= _choice("attribute", scorer, cases, config, least_cases=benchmarks.LEAST_ATTRIBUTE_CASES)
    trained = set(expand(training_shards))
    shards = expand(config.retrieval) or sorted(trained)
    if shards:
        prefix = "retrieval_on_training_images" if trained & set(shards) else "retrieval"
        scores |= {f"{prefix}/{k}": v for k, v in _retrieval(scorer, shards, config, caption_field).items()}
    return scores


def check_files(config: EvaluateConfig) -> None:
    """Read the benchmark files and look the shards up, before a training of hours ends in an error of theirs.

    Raises BenchmarkError or ShardError as `evaluate` would.
    """
    for path, read in ((config.relation, relation_cases), (config.attribute, attribute_cases)):
        for case in read(path, config.images)[:1] if path else ():
            case.crop()
    expand(config.retrieval)


def _choice(
    name: str, scorer: Scorer, cases: Sequence[Case], config: EvaluateConfig, least_cases: int
) -> dict[str, float]:
    if not cases:
        raise BenchmarkError(f"evaluate.{name}={getattr(config, name)!r}: no case in it counts")
    crops = list({(case.image, case.box): case for case in cases}.values())
    crop_row = {(case.image, case.box): row for row, case in enumerate(crops)}
    captions = benchmarks.captions_of(cases)
    caption_row = {caption: row for row, caption in enumerate(captions)}
    images = scorer.encode_image((case.crop() for case in crops), config.batch_size)
    texts = scorer.encode_text(captions, config.batch_size)

    def similarity(caption: Callable[[Case], str]) -> Tensor:
        image = images[[crop_row[case.image, case.box] for case in cases]]
        return (image * texts[[caption_row[caption(case)] for case in cases]]).sum(dim=1)

    result = metrics.choice(
        similarity(lambda case: case.true_caption),
        similarity(lambda case: case.false_caption),
        [case.group for case in cases],
    )
    scores = {f"{name}/accuracy": result.accuracy, f"{name}/cases": float(len(cases))}
    macro = result.macro(least_cases)
    return scores if macro is None else scores | {f"{name}/macro": macro}


def _retrieval(
    scorer: Scorer, shards: Sequence[str], config: EvaluateConfig, caption_field: str
) -> dict[str, float]:
    features: list[Tensor] = []
    captions: list[str] = []
    owner: list[int] = []
    samples = itertools.islice(_readable(shards, scorer.image_size, caption_field), config.retrieval_images)
    while batch := list(itertools.islice(samples, config.batch_size)):
        for image, (sample, _) in enumerate(batch, start=owner[-1] + 1 if owner else 0):
            owner += [image] * len(sample.captions)
            captions += sample.captions
        features.append(scorer.encode_pixels(torch.stack([pixels for _, pixels in batch])))
    if not features:
        raise BenchmarkError(
            f"evaluate.retrieval: no readable image in {len(shards)} shards, first {shards[0]}"
        )
    texts = scorer.encode_text(captions, config.batch_size)
    images = torch.cat(features)
    scores = metrics.recall(images, texts, torch.tensor(owner))
    return scores | {"images": float(len(images)), "captions": float(len(captions))}


def _readable(shards: Sequence[str], size: int, caption_field: str) -> Iterator[tuple[Sample, Tensor]]:
    """Yield the samples of the shards with their pixels; what cannot be used is skipped and logged."""
    for shard in shards:
        for sample in read_shard(shard, caption_field):
            if isinstance(sample, Rejected):
                _log.warning("retrieval leaves out %s %s: %s", shard, sample.key, sample.reason)
                continue
            try:
                pixels = to_uint8(sample.image, size)
            except ImageError as error:
                _log.warning("retrieval leaves out %s %s: %s", shard, sample.key, error)
                continue
            yield sample, pixels
