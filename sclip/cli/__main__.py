"""`python -m sclip.cli`: the command line where its script is not installed."""

import sys

from sclip.cli import main

sys.exit(main())
