"""Prometheus' own checker: whether rules and expressions are valid, and which alerts made series raise."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from support.processes import require

PROMTOOL = shutil.which("promtool")


def require_promtool() -> None:
    """Skip where there is no promtool, but fail where SCLIP_PROMTOOL=required."""
    if PROMTOOL is None:
        require("SCLIP_PROMTOOL", "no promtool to check Prometheus' files with: apt-get install prometheus")


def checked(rules: Path) -> str:
    """Return what promtool has against a file of rules; "" where nothing."""
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(rules)], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def parsed(expressions: Iterable[str], folder: Path) -> str:
    """Return what promtool has against expressions of PromQL; "" where nothing."""
    rules = [{"record": f"expression:{at}", "expr": text} for at, text in enumerate(expressions)]
    path = folder / "expressions.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]}))
    return checked(path)


def fails(rules: Path, series: Mapping[str, str], minute: int, firing: Iterable[str], folder: Path) -> str:
    """Return how the alerts that fire at a minute differ from the named ones; "" where not at all.

    `series` are a value a minute each, in promtool's notation.
    """
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": expected,
            }
        ],
    }
    path = folder / "case.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [case]})
    )
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr
