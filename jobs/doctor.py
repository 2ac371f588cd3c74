"""Say whether this cluster can train, and what to do where it cannot.

    python jobs/doctor.py --config paper data.shards='s3://bucket/train/*.tar' run.storage=/mnt/shared
    ray job submit --working-dir . -- python jobs/doctor.py --json

Takes the arguments of jobs/pretrain.py, and looks from every node: versions, clock, memory, disk, open files, the
storage, MLflow and the shards, and whether all GPUs add up numbers together (nccl; gloo without any).

    --timeout SECONDS   longest that a node is waited for in one check (30)
    --json              print the findings as JSON

Exit status: 0 all well or with warnings, 1 something fails, 2 the cluster or the config cannot be used.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import contextlib

from rich.console import Console

from sclip.config import ConfigError
from sclip.config.loader import load


def _arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what is the doctor's, and the arguments that set the config."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--timeout", type=float, default=30.0)
    given, rest = parser.parse_known_args(argv)
    if not 0 < given.timeout < float("inf"):
        parser.error("--timeout: seconds, above 0")
    return given, rest


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0, 1 or 2 as the module says."""
    given, rest = _arguments(sys.argv[1:] if argv is None else argv)
    config = load(rest, folder=Path(__file__).parent / "configs", default="scenes", description=str(__doc__))
    from sclip.launch import (
        cluster,
        doctor,  # torch and Ray take seconds to import
    )

    out = sys.stdout
    try:
        # Ray tells of nodes that go on the standard output, wherever its logs go.
        with contextlib.redirect_stdout(sys.stderr):
            with Console(stderr=True).status("connecting") as status:
                cluster.connect()
                findings = doctor.examine(
                    config, given.timeout, lambda check: status.update(f"examining {check}")
                )
            if given.json:
                print(doctor.to_json(findings), file=out, flush=True)
            else:
                doctor.show(findings, Console(file=out))
    except ConfigError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("doctor: interrupted", file=sys.stderr)
        return 130
    return 1 if doctor.worst(findings) == "fail" else 0


if __name__ == "__main__":
    sys.exit(main())
