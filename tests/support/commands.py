"""Commands as functions in the process of a test, which spares them a start of Python and of torch."""

from __future__ import annotations

from collections.abc import Callable

from sclip.cli import main


def command(name: str) -> Callable[..., int]:
    """Return `sclip NAME` as a function of its arguments, which returns its exit status."""

    def run(*arguments: object) -> int:
        try:
            return main([name, *map(str, arguments)])
        except SystemExit as ended:
            return int(ended.code or 0)

    return run
