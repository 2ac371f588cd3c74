"""Commands as functions in the process of a test, which spares them a start of Python and of torch."""

from __future__ import annotations

import os
from collections.abc import Callable

from sclip.cli import main

SET_FOR_A_PROCESS = (
    "RAY_BACKEND_LOG_LEVEL",
    *(f"{name}_NUM_THREADS" for name in ("MKL", "OPENBLAS", "BLIS")),
)
"""What commands set in the environment of their process, which here goes on after them."""


def command(name: str) -> Callable[..., int]:
    """Return `sclip NAME` as a function of its arguments, which returns its exit status."""

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
