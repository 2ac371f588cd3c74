"""Log rows to Weights & Biases in a separate process. Each request and each answer is one line of JSON.

The process keeps the run safe from wandb, which sets environment variables (glibc before 2.41 crashes if a Ray thread
reads one at that moment), asks for keys on terminals, and installs exit handlers. It imports no sclip, to save memory.

    {"init": {...}}                  arguments of wandb.init -> {"rows": number of rows that the server has}
    {"rows": [[number, {...}], ...]} rows and their numbers, which increase -> {}
    {"finish": status}               ends the run with an exit status -> {}

The process ends after an answer {"error": text}, or at the end of its input. A run without "finish" has failed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any, TextIO

_INIT_S = 30.0
"""Seconds that the server may take to answer when the run begins."""
_UPLOAD_S = 25.0
"""Seconds that the last upload may take; less than `_FINISH_S` of sclip.tracking.tracker, which waits for it. The run's
next start sends the remaining rows."""


def main() -> None:
    """Answer the requests on standard input; redirect all other output to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    try:
        _serve(sys.stdin, answers, scratch.name)
    except Exception as error:
        scratch.cleanup()
        answers.write(json.dumps({"error": str(error) or type(error).__name__}) + "\n")
        os._exit(1)  # wandb's exit handlers would wait for the server


def _serve(requests: TextIO, answers: TextIO, scratch: str) -> None:
    import wandb

    # wandb creates a folder at each start; an online run needs this folder only as long as this process runs.
    folder = {} if wandb.setup().settings.mode in ("offline", "dryrun") else {"dir": scratch}

    run: Any = None
    for line in requests:
        request, answer = json.loads(line), {}
        if "init" in request:
            settings = wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,  # the command line may hold credentials
                x_disable_stats=True,  # the journal has these metrics as system/...
                x_save_requirements=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", _INIT_S)),
                finish_timeout=_UPLOAD_S,
                finish_timeout_raises=True,
            )
            run = wandb.init(**request["init"] | folder, resume="allow", settings=settings)
            run.define_metric("*", step_metric="step")
            answer = {"rows": run.step}
        elif "rows" in request:
            for number, row in request["rows"]:
                run.log(row, step=number, commit=True)
        else:
            run.finish(exit_code=request["finish"])
            run = None
        answers.write(json.dumps(answer) + "\n")
    if run is not None:
        run.finish(exit_code=1)


if __name__ == "__main__":
    main()
