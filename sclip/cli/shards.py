"""Commands that read all samples of shards before a run: annotate, validate."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sclip.cli.command import (
    ActorCpus,
    Actors,
    CaptionField,
    DataKeys,
    Refused,
    Shards,
    SpacyModel,
    argument,
    command,
    errors,
    flag,
    option,
    quiet_ray,
    read_data,
    reading_overrides,
)  # fmt: skip
from sclip.config import ConfigError
from sclip.storage.paths import shown

if TYPE_CHECKING:
    from sclip.prepare.annotate import Annotated as AnnotatedShard
    from sclip.prepare.validate import Findings

PANEL = "Shards"
PROGRESS_S = 10.0


@command(PANEL, "interrupted; the finished shards in {out} are kept: run the same command to continue")
def annotate(
    shards: Shards,
    out: Annotated[
        str, argument("OUT", "folder for the tars, index.json and report; every node must reach this folder")
    ],
    data_keys: DataKeys,
    caption_field: CaptionField = "",
    spacy_model: SpacyModel = "",
    actors: Actors = 0,
    actor_cpus: ActorCpus = 1.0,
    context_length: Annotated[
        int,
        option(
            "TOKENS",
            "model.context_length of the model that will train on OUT; above 77, longer captions are parsed",
            min=77,
        ),
    ] = 77,
    overwrite: Annotated[
        bool,
        flag(
            "--overwrite",
            "annotate again the shards in OUT that were made from other sources or with other rules",
        ),
    ] = False,
) -> None:
    """Copy shards and add the scene graph and the negatives of every caption, so that no run has to make them again.

    Uses the running Ray cluster, as pretrain does. If none is running, starts one on this machine. After a stop, the
    same command resumes.

      sclip annotate 'shards/train/*.tar' shards/annotated
      sclip pretrain data.shards='shards/annotated/*.tar'
    """
    if "://" in out:
        raise Refused(f"OUT {out!r}: a folder that every node reaches, not a URI")
    folder = Path(out).expanduser().absolute()
    quiet_ray()
    from sclip.data.patterns import expand
    from sclip.data.shards import ShardError
    from sclip.launch import cluster
    from sclip.prepare import annotate as job
    from sclip.prepare.actor_pool import ActorPool
    from sclip.prepare.writing import PackError
    from sclip.scenegraph import ParserError

    done = 0

    def say(shard: AnnotatedShard) -> None:
        nonlocal done
        done += not shard.failure
        left_out = f", {shard.quarantined} left out" if shard.quarantined else ""
        size = f"{shard.samples} samples, {shard.bytes / 2**20:.1f} MiB{left_out}"
        print(f"{shown(folder / shard.name)}: {shard.failure or size}", flush=True)

    with errors(ConfigError, PackError, ParserError, ShardError):
        data = read_data(data_keys, caption_field, spacy_model)
        urls = expand(shards)
        index = job.annotate(
            urls, folder, lambda: cluster.connect().cpus, ActorPool(actors, actor_cpus),
            data=data, most_words=context_length - 2, overwrite=overwrite, on_shard=say,
        )  # fmt: skip
    if done < len(urls):
        print(f"{len(urls) - done} shards were annotated before")
    print(
        f"{index.samples} samples in {len(index.shards)} shards; train on them: "
        f"data.shards={shown(f'{folder}/*.tar')}{reading_overrides(data)}"
        + (f" model.context_length={context_length}" if context_length > 77 else "")
    )
    print(f"look at them: {shown(folder / 'report.html')}; left out: {shown(folder / 'quarantine.jsonl')}")


@command(PANEL)
def validate(
    shards: Shards,
    data_keys: DataKeys,
    out: Annotated[
        Path | None, option("FOLDER", "folder to write quarantine.jsonl, report.json and report.html into")
    ] = None,
    image_size: Annotated[int, option("PIXELS", "height and width of the model's input images", min=1)] = 224,
    caption_field: CaptionField = "",
    spacy_model: SpacyModel = "",
    actors: Actors = 0,
    actor_cpus: ActorCpus = 1.0,
) -> int:
    """Find, before a run, every sample that the run would set aside and every shard that it could not read.

    Reads each shard and decodes each image as training does. Uses the running Ray cluster, as pretrain does. If none is
    running, starts one on this machine. Exit status 0: a run trains on every sample as it is; 1: something is set
    aside, missing, ignored or cleaned; 2: a shard cannot be reached (the others are validated), or nothing can be
    validated.

      sclip validate 'shards/train/*.tar' --out validation
    """
    quiet_ray()
    from ray.exceptions import RayError
    from rich.console import Console

    from sclip.launch import cluster
    from sclip.prepare.actor_pool import ActorPool
    from sclip.prepare.validate import examine
    from sclip.report.table import show_findings
    from sclip.scenegraph import ParserError

    printed_at = time.monotonic()

    def say(findings: Findings, total: int, rate: float) -> None:
        nonlocal printed_at
        if (now := time.monotonic()) - printed_at >= PROGRESS_S:
            printed_at = now
            counts = (
                f"{findings.samples:,} samples, {len(findings.quarantined):,} set aside, {rate:,.0f} a second"
            )
            print(f"{findings.shards:,} of {total:,} shards: {counts}", file=sys.stderr, flush=True)

    with errors(ConfigError, OSError, ParserError, RayError):
        data = read_data(data_keys, caption_field, spacy_model)
        findings, notes = examine(
            shards, data, image_size, ActorPool(actors, actor_cpus), lambda: cluster.connect().cpus, say,
            out.expanduser() if out else None,
        )  # fmt: skip
    console = Console(highlight=False)
    show_findings(findings.reasons(), console)
    for line in notes:
        console.print(line, soft_wrap=True, markup=False)
    for failure in findings.unreachable:
        print(f"validate: {failure}", file=sys.stderr)
    return 2 if findings.unreachable else 0 if findings.is_clean else 1
