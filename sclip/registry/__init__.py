"""The model registry: a trained model and its evaluation in, a registered version out, which gates make champion.

store         the MLflow store: versions by number or alias, files, errors of one line
versions      register a version (alias `candidate`) and fetch it again
measured      what was measured of a version, kept beside it
gates         judge a candidate beside the champion: plain values
promotion     give the alias `champion` to a version, refuse it, roll back, each with its record
"""

from __future__ import annotations

from sclip.registry.judgement import Check, Decision, judge
from sclip.registry.measured import evaluation_of, record
from sclip.registry.promotion import Promotion, decide, promote_by_hand, roll_back
from sclip.registry.requirements import pip_requirements
from sclip.registry.store import CANDIDATE, CHAMPION, RegistryError, connect, find
from sclip.registry.versions import download, open_version, register

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "Check",
    "Decision",
    "Promotion",
    "RegistryError",
    "connect",
    "decide",
    "download",
    "evaluation_of",
    "find",
    "judge",
    "open_version",
    "pip_requirements",
    "promote_by_hand",
    "record",
    "register",
    "roll_back",
]
