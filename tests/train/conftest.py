"""A rank that a signal ends (SIGSEGV, say) tells in which call: all ranks are forked from one process, with this set."""

import os

os.environ.setdefault("PYTHONFAULTHANDLER", "1")
