"""Make a registered version champion where its gates hold: `python jobs/promote.py NAME[/VERSION or @ALIAS]`.

The version, by default the one with the alias `candidate`, is judged beside the champion by what was measured of both.
Every decision is written to the version's tags with its figures. `--rollback` gives the alias back to the version that
was champion before; repeated, it goes further back.

    python jobs/promote.py structure-clip --gate 'vg_relation/macro >= champion - interval' --dry-run
    python jobs/promote.py structure-clip/7 --force --why 'the relation file of version 6 was cut'
    python jobs/promote.py structure-clip --rollback --why 'slow in production'
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
import re

from sclip.config import Config, ConfigError, RunConfig, parse_gate

_NAMED = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:[/@](?P<version>[^/@]+))?")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", metavar="NAME[/VERSION]", help="the registered model; @ALIAS is taken too")
    parser.add_argument(
        "--uri", default="", help="MLflow store; by default MLFLOW_TRACKING_URI, else the one in ~/sclip"
    )
    parser.add_argument(
        "--gate", action="append", default=[], metavar="EXPR",
        help="instead of the gates that the version was registered with (tracking.gates); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE",
        help="evaluation.json of this version, measured anew (jobs/evaluate.py): recorded with it first",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="promote whatever the scores; needs --why")
    parser.add_argument("--rollback", action="store_true", help="give the alias back to the champion before")
    parser.add_argument("--why", default="", metavar="TEXT", help="recorded with --force or --rollback")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    given = parser.parse_args(argv)
    if given.force and given.rollback:
        parser.error("--force promotes and --rollback takes back: one of them")
    if given.force and not given.why.strip():
        parser.error("--force needs --why: the reason is all that will say later why the gates did not count")
    by_hand = given.force or given.rollback
    if by_hand and (given.gate or given.evaluation):
        parser.error("--force and --rollback ask no gates: leave --gate and --evaluation out")
    if given.dry_run and given.evaluation:
        parser.error("--evaluation is recorded, --dry-run records nothing: first one, then the other")
    if given.why and not by_hand:
        parser.error("--why is recorded with --force or --rollback only: the gates are the reason otherwise")
    if not _NAMED.fullmatch(given.model) or (given.rollback and _NAMED.fullmatch(given.model)["version"]):
        parser.error(f"{given.model!r}: NAME, NAME/VERSION or NAME@ALIAS is meant, with --rollback NAME")
    return given


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the version is champion now (or would be), 1 where it is refused, 2 for bad input."""
    given = _arguments(argv)
    name, version = _NAMED.fullmatch(given.model).group("name", "version")
    version = version or "candidate"
    from sclip import registry, tracking  # MLflow takes seconds to import: not for a mistyped option
    from sclip.evaluate.result import Evaluation, EvaluationError

    try:
        for gate in given.gate:
            parse_gate(gate, "--gate")
        uri = (
            given.uri
            or os.environ.get("MLFLOW_TRACKING_URI")
            or tracking.store_uri(Config(), RunConfig().storage)
        )
        # MLflow itself would try again for minutes.
        with tracking.environment(MLFLOW_HTTP_REQUEST_TIMEOUT=30, MLFLOW_HTTP_REQUEST_MAX_RETRIES=1):
            client = registry.connect(uri)
            if given.rollback:
                outcome = registry.roll_back(client, name, given.why, dry_run=given.dry_run)
            elif given.force:
                outcome = registry.promote_by_hand(client, name, version, given.why, dry_run=given.dry_run)
            else:
                if given.evaluation:
                    evaluation = Evaluation.read(given.evaluation)
                    registry.record(client, registry.find(client, name, version), evaluation)
                outcome = registry.decide(client, name, version, given.gate, dry_run=given.dry_run)
    except (registry.RegistryError, EvaluationError, ConfigError, tracking.TrackingError) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("promote: interrupted", file=sys.stderr)
        return 130
    for line in outcome.lines():
        print(line)
    if given.dry_run:
        print("nothing was changed (--dry-run)")
    return 0 if outcome.promoted else 1


if __name__ == "__main__":
    sys.exit(main())
