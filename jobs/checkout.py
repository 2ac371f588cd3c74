"""The command line of this checkout, for the jobs beside this file.

Python puts the folder of a script first on its path, and Ray hands that on to its workers: `inspect.py` would be taken
for the standard library's, and an installed sclip would be imported instead of the checkout's.
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from sclip.cli import main


def run(job: str) -> None:
    """Run the command that a job is called as."""
    sys.exit(main([os.path.splitext(os.path.basename(job))[0], *sys.argv[1:]]))
