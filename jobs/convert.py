"""Make an export of a checkpoint or of weights in any layout, or open_clip's own folder of their CLIP part.

    python jobs/convert.py ~/sclip/runs/my-run/step-00000500 exported
    python jobs/convert.py clip_checkpoint.pt exported --model ViT-B-32 --quick-gelu on
    python jobs/convert.py ~/sclip/runs/my-run clip --clip

SOURCE is a run (its model, or its newest checkpoint), a checkpoint (step-*), an export, or what model.pretrained
reads: open_clip's or OpenAI's state dict, a checkpoint of open_clip's training or of Structure-CLIP's released code, a
folder that open_clip pushed to a hub. `--clip` writes what open_clip.create_model_and_transforms("local-dir:FOLDER")
loads. Nothing in a source is executed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import warnings

from sclip.config import ConfigError
from sclip.storage.paths import storage_path


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("source", metavar="SOURCE", help="a run, a checkpoint, a file or a folder")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty")
    parser.add_argument("--clip", action="store_true", help="the CLIP part alone, for open_clip")
    parser.add_argument(
        "--model", default="", metavar="NAME", help="architecture, where SOURCE does not say it"
    )
    parser.add_argument(
        "--quick-gelu", choices=("auto", "on", "off"), default="auto", help="where SOURCE does not say it"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the files are written, 2 where the source cannot be read or the usage is wrong."""
    given = _arguments(argv)
    from sclip.inference.convert import convert  # torch takes seconds to import
    from sclip.model import ModelError
    from sclip.scenegraph import ParserError
    from sclip.train.manifest import CheckpointError

    source, folder = storage_path(given.source), given.folder.expanduser()
    # Torch warns that it reads a checkpoint in a single process, which is what this job is.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    try:
        print(convert(source, folder, given.model, given.quick_gelu, given.clip))
    except (CheckpointError, ConfigError, ModelError, OSError, ParserError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("convert: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
