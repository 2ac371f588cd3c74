"""The model registry: a trained model and its evaluation in, a registered version out, which gates make champion.

versions      register a version (alias `candidate`), fetch it, read and replace what was measured of it
gates         judge a candidate beside the champion: plain values
promotion     give the alias `champion` to a version, refuse it, roll back, each with its record
"""

from __future__ import annotations

from sclip.registry.errors import RegistryError
from sclip.registry.gates import Check, Decision, judge
from sclip.registry.promotion import Promotion, decide, promote_by_hand, roll_back
from sclip.registry.requirements import pip_requirements
from sclip.registry.versions import (
    CANDIDATE,
    CHAMPION,
    connect,
    download,
    evaluation_of,
    find,
    record,
    register,
)

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
    "pip_requirements",
    "promote_by_hand",
    "record",
    "register",
    "roll_back",
]
