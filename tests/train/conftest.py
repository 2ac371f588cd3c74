"""A rank that a signal ends tells in which call: the process that all ranks are forked from has this set."""

import os

os.environ.setdefault("PYTHONFAULTHANDLER", "1")
