"""Alerts fire when they should and at no other time; alerts and dashboard query only metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from sclip.launch.exporter import COUNTERS, GAUGES
from support.paths import ROOT
from support.processes import require

FOLDER = ROOT / "cluster" / "observability"
ALERTS, DASHBOARD = FOLDER / "alerts.yml", FOLDER / "dashboard.json"
EXPORTED = {f"ray_{name}" for name in (*GAUGES, *COUNTERS)}
"""Metric names with Ray's prefix; tests/run/test_observed_run.py reads them from Ray's endpoint."""


def promtool(*command: str) -> str:
    """Return the error of Prometheus' own checker, or "" if it succeeds; `test` also reads the rules."""
    program = shutil.which("promtool")
    if program is None:
        require("SCLIP_PROMTOOL", "no promtool to try alerts with")
    done = subprocess.run([program, *command], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def series(**changes: str) -> dict[str, str]:
    """Return an hour of a healthy run with one value per minute; `changes` replaces the values of some metrics."""
    healthy = {
        "training": "1x60",
        "samples_total": "0+6000x60",
        "train_seconds_total": "0+60x60",
        "data_wait_seconds_total": "0+3x60",
        "nonfinite_steps": "0x60",
        "quarantined_samples": "40x60",
        "checkpoint_timestamp_seconds": "0+60x60",
    }
    assert changes.keys() <= healthy.keys()
    values = {name: text for name, text in (healthy | changes).items() if text}
    return {f'ray_sclip_{name}{{run="a",WorkerId="1"}}': text for name, text in values.items()}


STUCK = {"samples_total": "0+6000x20 120000x40"}
UNBEGUN = {"samples_total": "", "train_seconds_total": "", "data_wait_seconds_total": ""}
GONE = {"training": "1x20 stale _x40"} | STUCK
UNSAVED = {"checkpoint_timestamp_seconds": "0x90", "training": "1x90", "samples_total": "0+6000x90"}
RESTARTED = {'ray_sclip_training{run="a",WorkerId="2"}': "_x24 1x40"}


@pytest.mark.parametrize(
    ("observed", "minute", "firing"),
    [
        pytest.param(series(), 60, [], id="healthy"),
        pytest.param(series(**STUCK), 50, ["SclipRunStalled"], id="no sample for 30 minutes"),
        pytest.param(series(**STUCK), 35, [], id="none for 15"),
        pytest.param(series(**UNBEGUN), 15, ["SclipRunStalled"], id="none from the start for 15 minutes"),
        pytest.param(series(**UNBEGUN), 5, [], id="none for 5"),
        pytest.param(series(**STUCK | {"training": "1x20 0x40"}), 60, [], id="trained to the end"),
        pytest.param(series(**GONE), 25, ["SclipRunEnded"], id="the driver is gone"),
        pytest.param(series(**GONE), 60, [], id="gone long ago"),
        pytest.param(series(training=GONE["training"]) | RESTARTED, 30, [], id="gone and started again"),
        pytest.param(series(**GONE | {"training": "1x19 0 stale _x40"}), 25, [], id="ended and gone"),
        pytest.param(series(data_wait_seconds_total="0+18x60"), 40, ["SclipDataBound"], id="waits 30 %"),
        pytest.param(series(data_wait_seconds_total="0+18x60"), 8, [], id="waits 30 % at its start"),
        pytest.param(series(data_wait_seconds_total="0+9x60"), 40, [], id="waits 15 %"),
        pytest.param(series(nonfinite_steps="0x30 1x30"), 32, ["SclipLossNotFinite"], id="a loss not finite"),
        pytest.param(series(nonfinite_steps="0x30 1x30"), 55, [], id="one long ago"),
        pytest.param(series(nonfinite_steps="7x60"), 30, [], id="some before the resume"),
        pytest.param(
            series(quarantined_samples="0x30 0+100x30"), 60, ["SclipQuarantineRising"], id="1.7 % bad"
        ),
        pytest.param(series(quarantined_samples="0+30x60"), 60, [], id="0.5 % bad"),
        pytest.param(series(**UNSAVED), 59, [], id="no checkpoint for 59 minutes"),
        pytest.param(series(**UNSAVED), 62, ["SclipCheckpointTooOld"], id="none for 62"),
        pytest.param(series(**UNSAVED | {"training": "1x9 0x81"}), 80, [], id="none since the end"),
    ],
)
def test_only_the_expected_alert_fires(
    observed: dict[str, str], minute: int, firing: list[str], tmp_path: Path
) -> None:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing]
    query = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minute}m"}
    inputs = [{"series": name, "values": values} for name, values in observed.items()]
    case = {"interval": "1m", "input_series": inputs, "promql_expr_test": [query | {"exp_samples": samples}]}
    cases = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "case.yml").write_text(yaml.safe_dump(cases))
    assert promtool("test", "rules", str(tmp_path / "case.yml")) == ""


def expressions() -> list[str]:
    """Return the queries of the dashboard's panels, with the dashboard's variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$run", ".*").replace("$__rate_interval", "5m") for text in queries]


def test_every_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    assert len(expressions()) > 20
    for name, queries in (("dashboard", expressions()), ("wrong", ["sum by (run) (rate(x[5m])"])):
        rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(queries)]
        (tmp_path / name).write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    assert promtool("check", "rules", str(tmp_path / "dashboard")) == ""
    assert "parse error" in promtool("check", "rules", str(tmp_path / "wrong"))


def metrics(text: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", text))


def rays_own() -> set[str]:
    """Return the metrics that Ray's own dashboards query, and those that its agent reports about a node."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules"
    dashboards = "".join(path.read_text() for path in (folder / "metrics" / "dashboards").glob("*.py"))
    agent = (folder / "reporter" / "reporter_agent.py").read_text()
    return metrics(dashboards) | {f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', agent)}


def test_dashboard_and_alerts_query_only_exported_metrics_and_nearly_all_of_ours() -> None:
    queried = metrics(" ".join(expressions()) + DASHBOARD.read_text() + ALERTS.read_text())
    assert queried - EXPORTED - rays_own() == set()
    # Metrics that only say where a number comes from are not queried.
    assert EXPORTED - queried == {"ray_sclip_step", "ray_sclip_epoch", "ray_sclip_checkpoint_step"}


def lost(written: Any, read: Any, path: str = "") -> list[str]:
    """Return the places of values in `written` that are missing or different in `read`."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [key for name in written for key in lost(written[name], read.get(name, "?"), f"{path}.{name}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = enumerate(zip(written, read, strict=True))
        return [key for number, pair in pairs for key in lost(*pair, f"{path}[{number}]")]
    return [] if written == read else [path]


def test_grafanas_own_types_know_every_key_of_the_dashboard() -> None:
    register_default_plugins()
    dashboard = json.loads(DASHBOARD.read_text())
    dashboard["panels"][0]["titel"] = "planted"
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert lost(dashboard, known) == [".panels[0].titel"]
