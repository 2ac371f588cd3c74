"""Check whether a connected cluster can train a config, and return the findings of each check and node.

Every check runs where its answer matters, mostly on each node (`sclip.launch.doctor.nodes`), and returns plain facts.
The driver then compares the nodes and judges the facts. Each check has a time limit.
"""

from sclip.launch.doctor.examine import CHECKS, examine
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst

__all__ = ["CHECKS", "CheckFinding", "examine", "show", "to_json", "worst"]
