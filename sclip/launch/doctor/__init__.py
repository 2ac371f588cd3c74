"""Check whether a connected cluster can train a config, and return the findings of each check and node.

Most checks read facts on every node (`sclip.launch.doctor.probes`); the driver then compares and judges these facts.
Each check has a time limit.
"""

from sclip.launch.doctor.examine import CHECKS, examine
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst

__all__ = ["CHECKS", "CheckFinding", "examine", "show", "to_json", "worst"]
