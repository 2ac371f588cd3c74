"""Commands that write new shards: generated scenes, packed images, a subset; and the list of pictures to leave out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sclip.cli.command import (
    CaptionField,
    DataKeys,
    Overwrite,
    Refused,
    SamplesPerShard,
    Shards,
    argument,
    command,
    errors,
    option,
    read_data,
    repeatable,
)  # fmt: skip
from sclip.config import ConfigError, ScenesConfig
from sclip.storage.paths import shown

if TYPE_CHECKING:
    from sclip.prepare.pack import Skips
    from sclip.prepare.writing import Shard

PANEL = "Shards"
_SCENES = ScenesConfig()
_WHOLE = "interrupted; the finished shards in {out} are complete but have no index"

Out = Annotated[Path, argument("OUT", "folder to write the tars and index.json into")]


@command(PANEL)
def scenes(
    out: Annotated[Path, argument("OUT", "folder to write into")],
    seed: Annotated[int, option("N", "seed of the random scenes")] = 0,
    train_samples: Annotated[
        int, option("N", "number of training scenes, as scenes.train_samples in a config")
    ] = _SCENES.train_samples,
    heldout_samples: Annotated[
        int, option("N", "number of held-out scenes, as scenes.heldout_samples in a config")
    ] = _SCENES.heldout_samples,
    image_size: Annotated[
        int, option("PIXELS", "height and width of a scene, as scenes.image_size in a config")
    ] = _SCENES.image_size,
    family: Annotated[
        Literal["a", "b"], option("a|b", "all scenes, or those of five colors, as scenes.family in a config")
    ] = _SCENES.family,
) -> None:
    """Generate the scenes that training uses by default.

    Writes training and held-out shards, ARO-format evaluation files and their images below OUT, and prints the paths as
    overrides for pretrain. Each set of options has a folder of its own in OUT, which is reused if it exists.
    """
    from sclip.prepare.scenes import generate
    from sclip.prepare.writing import PackError

    with errors(ConfigError, PackError, OSError):
        paths = generate(out, ScenesConfig(train_samples, heldout_samples, image_size, family), seed)
    print(f"data.shards={shown(paths.train)}\nevaluate.suite={shown(paths.suite)}")


@command(PANEL, _WHOLE)
def pack(
    source: Annotated[
        Path,
        argument(
            "SOURCE",
            "file or folder with the captions, in a format named above, or a quoted pattern of Parquet files",
        ),
    ],
    out: Out,
    exclude: Annotated[
        list[str], repeatable("FILE", "leave out the pictures on this list (from sclip exclude)", "--exclude")
    ],
    splits: Annotated[
        list[str],
        repeatable("NAME", "split to pack if SOURCE has several; train includes restval", "--split"),
    ],
    kept: Annotated[
        list[str],
        repeatable(
            "NAME", "further column or field of SOURCE to copy into each sample's .json", "--keep-field"
        ),
    ],
    images: Annotated[
        Path | None,
        option(
            "FOLDER",
            "base folder of relative image paths; by default the folder of SOURCE, or images in that folder",
        ),
    ] = None,
    image_field: Annotated[
        str, option("NAME", "column or field with the image, or a pattern as 'COCO_{image_id:012}.jpg'")
    ] = "",
    caption_field: Annotated[
        str, option("NAME", "column or field with the captions; by default the usual names")
    ] = "",
    samples_per_shard: SamplesPerShard = 1000,
    bytes_per_shard: Annotated[
        int | None, option("N", "maximum bytes of images in a shard; by default no limit", min=1)
    ] = None,
    processes: Annotated[
        int, option("N", "number of processes; by default the number of CPUs", min=1, show_default=False)
    ] = (os.cpu_count() or 1),
    overwrite: Overwrite = False,
) -> None:
    """Pack images and their captions into WebDataset shards.

    The format of SOURCE is recognized by its content: JSON (COCO's captions, Karpathy's dataset_coco.json, a list of
    objects like BLIP's); JSON Lines; a table with a header (separated by commas, tabs or |), where each row has an
    image path and one or several captions; Flickr's results_20130124.token; Parquet with images or their paths; a
    folder of images. The folder needs a metadata file (.jsonl, .csv or .parquet), or beside each image a .txt file (one
    caption per line) or a .json file of the same name.

    Rows that are not packed are counted, and listed with their places. A column, or the names of Parquet files, may
    give each row a split. --split is needed if there are splits other than train and restval, or if some rows have a
    split and others have none.

    False captions in files of NegCLIP, DeGLA, CS-CLIP and CE-CLIP are packed too; data.negatives_field can name them.

      sclip pack captions_train2017.json shards/train --images train2017
      sclip pack dataset_coco.json shards/train --images coco --split train
      sclip pack 'flickr30k/*.parquet' shards/train --split train
      sclip pack pairs.csv shards/train --exclude benchmarks.jsonl
      sclip pack DeGLA.json shards/train --images train2014 --image-field 'COCO_train2014_{image_id:012}.jpg'
    """
    from sclip.evaluate.exclusion import ExclusionError, Exclusions
    from sclip.prepare.pack import Skips, write_shards
    from sclip.prepare.sources import read_source
    from sclip.prepare.writing import PackError

    skips = Skips()
    try:
        samples, skips = read_source(
            source, images, image_field=image_field, caption_field=caption_field, splits=splits, kept=kept
        )
        index = write_shards(
            samples, out, samples_per_shard=samples_per_shard, bytes_per_shard=bytes_per_shard, workers=processes,
            overwrite=overwrite, exclusions=Exclusions.read(list(map(Path, exclude))) if exclude else None,
            on_shard=lambda shard: _print_shard(out, shard),
        )  # fmt: skip
    except (PackError, ExclusionError) as error:
        raise Refused("\n".join([*skips.lines(), str(error)])) from error
    _print_skips("pack", skips, index.skips)
    with errors(OSError):
        listed = f"; all skipped rows: {shown(skips.write(out))}" if skips.counts else ""
    print(f"{skips.sum(index.rows)}{listed}")
    print(
        f"{index.samples} samples in {len(index.shards)} shards; train on them: data.shards={shown(f'{out}/*.tar')}"
    )


@command(PANEL, _WHOLE)
def subset(
    shards: Shards,
    out: Out,
    data_keys: DataKeys,
    min_objects: Annotated[int, option("N", "minimum objects in a caption's graph", min=0)] = 0,
    min_attributes: Annotated[int, option("N", "minimum attributes in a caption's graph", min=0)] = 0,
    min_relations: Annotated[int, option("N", "minimum relations in a caption's graph", min=0)] = 0,
    caption_field: CaptionField = "",
    samples_per_shard: SamplesPerShard = 1000,
    overwrite: Overwrite = False,
) -> None:
    """Copy the captions with large enough graphs, and their images, from annotated shards into new shards.

    A caption is kept if its graph has at least --min-objects objects, --min-attributes attributes and --min-relations
    relations. A sample without such a caption is left out. A run on SHARDS with data.min_objects, data.min_attributes
    and data.min_relations trains on the same samples and captions, but reads more data, in another order and with other
    random draws.

      sclip subset 'shards/annotated/*.tar' shards/subset --min-objects 2 --min-relations 1
    """
    least = (min_objects, min_attributes, min_relations)
    if not any(least):
        raise Refused("nothing to filter by: pass --min-objects, --min-attributes or --min-relations")
    from sclip.data.patterns import expand
    from sclip.data.shards import ShardError
    from sclip.prepare.pack import Skips, write_shards
    from sclip.prepare.subset import Kept, passing_samples
    from sclip.prepare.writing import PackError, refuse_sources

    kept, skips = Kept(), Skips()
    try:
        data = read_data(data_keys, caption_field)
        urls = expand(shards)
        refuse_sources(urls, out)
        index = write_shards(
            passing_samples(urls, least, data, kept, skips), out, samples_per_shard=samples_per_shard,
            overwrite=overwrite, on_shard=lambda shard: _print_shard(out, shard),
        )  # fmt: skip
    except (ConfigError, PackError, ShardError) as error:
        raise Refused("\n".join([*skips.lines(), str(error)])) from error
    _print_skips("subset", skips, index.skips)
    print(
        f"kept {index.samples} of {kept.samples_of} samples, {kept.captions} of {kept.captions_of} captions, "
        f"in {len(index.shards)} shards; train on them: data.shards={shown(f'{out}/*.tar')}"
    )


@command(PANEL)
def exclude(
    sources: Annotated[
        list[str],
        argument("SOURCE", "folder of images, shards, or a Karpathy .json file (as dataset_coco.json)"),
    ],
    out: Annotated[Path, option("FILE", "list to write (JSON Lines)")],
    data_keys: DataKeys,
    name: Annotated[
        str, option("NAME", "name of the pictures' data set in reports; by default the name of SOURCE")
    ] = "",
    split: Annotated[str, option("SPLIT", "split to list if SOURCE is a Karpathy file")] = "test",
    images: Annotated[
        Path | None,
        option(
            "FOLDER",
            "pictures of a Karpathy file; by default they are listed by name only, without perceptual hashes",
        ),
    ] = None,
) -> None:
    """List the pictures of benchmarks that training must not see, by name and perceptual hash.

    `sclip pack --exclude FILE` leaves out every image that has the name of a listed picture or looks like one.

      sclip exclude 'coco-test/*.tar' flickr30k-images --out benchmarks.jsonl
    """
    from sclip.data.shards import ShardError
    from sclip.evaluate.exclusion import Exclusion, ExclusionError
    from sclip.prepare.exclude import excluded, write_list
    from sclip.prepare.pack import Skips

    skips = Skips()
    entries: list[Exclusion] = []
    with errors(ConfigError, ExclusionError, ShardError, OSError):
        data = read_data(data_keys)
        for source in sources:
            title = name or Path(source).stem
            entries += excluded(source, title, skips, split=split, images=images, data=data)
        if not entries:
            raise ExclusionError("no picture in any source: " + "; ".join(skips.lines()))
        out.parent.mkdir(parents=True, exist_ok=True)
        write_list(entries, out)
    for line in skips.lines():
        print(f"exclude: {line}", file=sys.stderr)
    hashed = sum(bool(entry.phash) for entry in entries)
    print(f"{shown(out)}: {len(entries):,} pictures, {hashed:,} with a perceptual hash")


def _print_shard(out: Path, shard: Shard) -> None:
    print(f"{shown(out / shard.name)}: {shard.samples} samples, {shard.bytes / 2**20:.1f} MiB", flush=True)


def _print_skips(name: str, skips: Skips, written: Skips) -> None:
    skips.merge(written)
    for line in (*skips.notes, *skips.lines()):
        print(f"{name}: {line}", file=sys.stderr)
