"""Register trained models with their evaluations in MLflow, and let gates decide which version is champion.

store         the MLflow store: versions by number or alias, files, one-line errors
requirements  the pinned libraries of a registered model
versions      register a version (alias `candidate`), download and open it
measured      store and read the evaluation of a version
judgement     judge a candidate against the champion, without MLflow
promotion     make a version champion, refuse it or roll back, and record the decision
"""

from __future__ import annotations

from sclip.registry.measured import evaluation_of, record
from sclip.registry.promotion import Promotion, decide, promote_by_hand, roll_back
from sclip.registry.requirements import pip_requirements
from sclip.registry.store import RegistryError, connect, find
from sclip.registry.versions import download, open_version, register, register_once

__all__ = ["Promotion", "RegistryError", "connect", "decide", "download", "evaluation_of", "find"]
__all__ += ["open_version", "pip_requirements", "promote_by_hand", "record", "register"]
__all__ += ["register_once", "roll_back"]
