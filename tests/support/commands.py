"""Run commands inside the process of a test, which saves starting Python and importing torch."""

from __future__ import annotations

import os
from collections.abc import Callable

from sclip.cli import main

SET_FOR_A_PROCESS = (
    "RAY_BACKEND_LOG_LEVEL",
    *(f"{name}_NUM_THREADS" for name in ("MKL", "OPENBLAS", "BLIS")),
)
"""Variables that commands set in their process's environment. They are removed, since the tests' process goes on."""


def command(name: str) -> Callable[..., int]:
    """Return `sclip NAME` as a function that takes the arguments and returns the exit status."""

    def run(*arguments: object) -> int:
        before = set(os.environ)
        try:
            return main([name, *map(str, arguments)])
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            for variable in SET_FOR_A_PROCESS:
                if variable not in before:
                    os.environ.pop(variable, None)

    return run
