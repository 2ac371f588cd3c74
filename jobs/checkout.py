"""The command line of this checkout, for the jobs beside this file.

Python puts a script's folder first on `sys.path`; this file replaces it by the checkout's root. With jobs/ first, an
installed sclip would be imported instead of the checkout's, and jobs/inspect.py instead of Python's `inspect`.
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sclip.cli import main


def run(job: str) -> None:
    """Run the `sclip` command that a job script is named after: `sclip sweep` for the path jobs/sweep.py."""
    sys.exit(main([os.path.splitext(os.path.basename(job))[0], *sys.argv[1:]]))
