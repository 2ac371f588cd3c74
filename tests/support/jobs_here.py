"""Jobs as functions in the process of a test, which spares them a start of Python and of torch."""

from __future__ import annotations

import runpy
from collections.abc import Callable

from support.paths import ROOT


def job_here(name: str) -> Callable[..., int]:
    """Return jobs/NAME.py as a function of its arguments, which returns its exit status."""
    main = runpy.run_path(str(ROOT / "jobs" / f"{name}.py"))["main"]

    def run(*arguments: object) -> int:
        try:
            return int(main([str(argument) for argument in arguments]))
        except SystemExit as ended:
            return int(ended.code or 0)

    return run
