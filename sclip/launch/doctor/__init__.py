"""Check whether an environment can train: takes a config and a connected cluster, returns findings per check and node.

Every check runs where its answer matters, mostly on each node (`sclip.launch.doctor.nodes`), and returns plain facts.
The driver then compares the nodes and judges the facts. Each check has a time limit.
"""

from sclip.launch.doctor.examine import CHECKS, examine
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst

__all__ = ["CHECKS", "CheckFinding", "examine", "show", "to_json", "worst"]
