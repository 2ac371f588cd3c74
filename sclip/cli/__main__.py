"""Run the command line as `python -m sclip.cli` if the script `sclip` is not installed."""

import sys

from sclip.cli import main

sys.exit(main())
