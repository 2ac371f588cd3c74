"""Train Structure-CLIP on WebDataset shards and register the model.

    python jobs/pretrain.py                                     the generated scenes
    python jobs/pretrain.py data.shards='/data/{000..127}.tar'  your own shards
    python jobs/pretrain.py --config paper train.num_workers=8

Also as `ray job submit --working-dir . -- python jobs/pretrain.py ...`; `--help` lists every key.
"""

import logging
import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from sclip.config import ConfigError
from sclip.config_loader import load
from sclip.masking import mask


def main() -> int:
    """Return the exit status: 0 done, 1 failed, 2 not started for a mistake in the config, 143 stopped by a signal."""
    config = load(
        sys.argv[1:], folder=Path(__file__).parent / "configs", default="scenes", description=str(__doc__)
    )
    from sclip import (  # torch and Ray take seconds to import; --help and mistakes need neither
        finish,
        logs,
        pretrain,
        stopping,
    )

    as_json = config.run.log_format == "json"
    console = logs.json_console(sys.stdout) if as_json else Console(stderr=False)

    def failed(text: str, status: int) -> int:
        if as_json:
            logging.getLogger("sclip").error("%s", text)
        else:
            print(f"pretrain: {mask(text)}", file=sys.stderr)
        return status

    try:
        summary = pretrain.pretrain(config, console)
    except ConfigError as error:
        return failed(str(error), 2)
    except pretrain.ERRORS as error:
        return failed(str(error), 1)
    except stopping.Stopped as error:
        return failed(str(error), 143)
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    finish.show(summary, config, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
