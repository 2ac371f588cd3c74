"""Send what a run told while MLflow was away, and register its model: `python jobs/sync.py RUN`, its folder or name.

Sends what the store has not, into the run that it has or a new one, as often as it is called. A finished run whose
model could not be registered is registered.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # instead of jobs/, whose inspect.py would be taken for the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
from typing import TYPE_CHECKING

from sclip.config import ConfigError, RunConfig
from sclip.storage.masking import mask
from sclip.storage.place import Place, here, place

if TYPE_CHECKING:
    from sclip import tracking


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="folder or URI of a run, folder of a sweep, or its name")
    parser.add_argument("--uri", default="", help="another MLflow store than the run's tracking.uri")
    parser.add_argument("--storage", default=RunConfig().storage, help="run.storage of a run that is named")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 where the store has all, 1 where it took only a part, 2 where nothing can be sent."""
    given = _arguments(argv)
    from sclip import tracking  # seconds, which --help does not need

    storage = place(given.storage)
    places = (place(given.run), storage / "runs" / given.run, storage / "sweeps" / given.run)
    try:
        folder = next((found for found in places if found.is_dir()), places[1])
        tracker = tracking.open_recorded(folder, given.uri)
        if left := tracker.close():
            print(f"sync: {left}", file=sys.stderr)
            return 1
        print(f"{folder}: all is in {mask(tracker.uri)}, run {tracker.run_id}")
        return _register(folder, tracker)
    except (tracking.TrackingError, ConfigError, OSError) as error:
        print(f"sync: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sync: interrupted", file=sys.stderr)
        return 130


def _register(folder: Place, tracker: tracking.Tracker) -> int:
    """Register the model of a finished run that is not; return the exit status."""
    from sclip import tracking

    result = folder / "result.json"
    if not result.is_file():
        return 0
    try:
        registered = bool(json.loads(result.read_text())["version"])
    except (ValueError, LookupError, TypeError) as error:
        raise tracking.TrackingError(f"{result}: not what a run leaves behind: {error}") from error
    if registered:
        return 0
    from sclip import registry  # torch, for a run that needs it
    from sclip.evaluate.result import EVALUATION_FILE, Evaluation, EvaluationError
    from sclip.train.run_config import read_run_config
    from sclip.train.run_folder import RunFolder

    run, tracking_config = RunFolder(folder), read_run_config(folder)[0].tracking
    found, name, gates = run.result or {}, tracking_config.model_name, tracking_config.gates
    try:
        measured = Evaluation.read(folder / EVALUATION_FILE)
        with here(run.model) as exported:
            version = registry.register(tracker.client, tracker.run_id, exported, name, measured, gates)
        decision = registry.decide(tracker.client, name, version).lines() if gates else []
    except (EvaluationError, registry.RegistryError) as error:
        print(f"sync: {error}", file=sys.stderr)
        return 1
    run.record_result(found | {"version": version, "decision": decision})
    print("\n".join([f"registered: models:/{name}/{version}", *decision]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
