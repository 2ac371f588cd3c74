"""Whether an environment can train: a config and a connected cluster in, a finding for each check and node out.

Every check looks from where its answer matters, mostly from each node (`sclip.launch.doctor.nodes`), returns
plain facts, and is judged on the driver, where the nodes are compared. Each is bounded in time.
"""

from sclip.launch.doctor.examine import CHECKS, examine
from sclip.launch.doctor.finding import CheckFinding, show, to_json, worst

__all__ = ["CHECKS", "CheckFinding", "examine", "show", "to_json", "worst"]
