"""The alerts fire when they should and at no other time; alerts and dashboard ask for metrics that there are."""

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
"""As Ray names them; tests/run/test_observed_run.py reads them from its endpoint."""


def promtool(*command: str) -> str:
    """Return what Prometheus' own checker says where it fails, "" where it does not; `test` also reads the rules."""
    program = shutil.which("promtool")
    if program is None:
        require("SCLIP_PROMTOOL", "no promtool to try alerts with")
    done = subprocess.run([program, *command], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def series(**of: str) -> dict[str, str]:
    """Return an hour of a healthy run, a value a minute, with other values for some of its metrics."""
    healthy = {
        "training": "1x60",
        "samples_total": "0+6000x60",
        "train_seconds_total": "0+60x60",
        "data_wait_seconds_total": "0+3x60",
        "nonfinite_steps": "0x60",
        "quarantined_samples": "40x60",
        "checkpoint_timestamp_seconds": "0+60x60",
    }
    assert of.keys() <= healthy.keys()
    return {
        f'ray_sclip_{name}{{run="a",WorkerId="1"}}': text for name, text in (healthy | of).items() if text
    }


GONE = "1x20 stale _x40"
RESTARTED = {'ray_sclip_training{run="a",WorkerId="2"}': "_x24 1x40"}


@pytest.mark.parametrize(
    ("found", "minute", "firing"),
    [
        (series(), 60, []),
        (series(samples_total="0+6000x20 120000x40"), 50, ["SclipRunStalled"]),
        (series(samples_total="0+6000x20 120000x40"), 35, []),
        (series(samples_total="", train_seconds_total="", data_wait_seconds_total=""), 15, ["SclipRunStalled"]),
        (series(samples_total="", train_seconds_total="", data_wait_seconds_total=""), 5, []),
        (series(training="1x20 0x40", samples_total="0+6000x20 120000x40"), 60, []),
        (series(training=GONE, samples_total="0+6000x20 120000x40"), 25, ["SclipRunEnded"]),
        (series(training=GONE, samples_total="0+6000x20 120000x40"), 60, []),
        (series(training=GONE) | RESTARTED, 30, []),
        (series(training="1x19 0 stale _x40", samples_total="0+6000x20 120000x40"), 25, []),
        (series(data_wait_seconds_total="0+18x60"), 40, ["SclipDataBound"]),
        (series(data_wait_seconds_total="0+18x60"), 8, []),
        (series(data_wait_seconds_total="0+9x60"), 40, []),
        (series(nonfinite_steps="0x30 1x30"), 32, ["SclipLossNotFinite"]),
        (series(nonfinite_steps="0x30 1x30"), 55, []),
        (series(nonfinite_steps="7x60"), 30, []),
        (series(quarantined_samples="0x30 0+100x30"), 60, ["SclipQuarantineRising"]),
        (series(quarantined_samples="0+30x60"), 60, []),
        (series(checkpoint_timestamp_seconds="0x90", training="1x90", samples_total="0+6000x90"), 59, []),
        (
            series(checkpoint_timestamp_seconds="0x90", training="1x90", samples_total="0+6000x90"), 62,
            ["SclipCheckpointTooOld"],
        ),
        (series(checkpoint_timestamp_seconds="0x90", training="1x9 0x81"), 80, []),
    ],
    ids=[
        "healthy", "no sample for 30 minutes", "none for 15", "no sample from the start for 15 minutes", "none for 5",
        "trained to the end", "the driver is gone", "gone long ago", "gone and started again", "ended and gone",
        "waits 30 % of its time", "waits 30 % at its start", "waits 15 %", "a loss not finite", "one long ago",
        "some before the resume", "1.7 % set aside", "0.5 % set aside", "no checkpoint for 59 minutes",
        "none for 62", "none since the end",
    ],
)  # fmt: skip
def test_an_alert_fires_when_it_should_and_no_other_does(
    found: dict[str, str], minute: int, firing: list[str], tmp_path: Path
) -> None:
    assert fails(found, minute, firing, tmp_path) == ""


def fails(found: dict[str, str], minute: int, firing: list[str], folder: Path) -> str:
    """Return how the alerts that fire at a minute differ from the named ones; "" where not at all."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing]
    asked = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minute}m"}
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in found.items()],
        "promql_expr_test": [asked | {"exp_samples": samples}],
    }
    path = folder / "case.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]})
    )
    return promtool("test", "rules", str(path))


def test_a_wrong_expectation_of_an_alert_is_seen(tmp_path: Path) -> None:
    assert "SclipRunStalled" in fails(series(), 60, ["SclipRunStalled"], tmp_path)


def test_each_alert_says_what_to_look_at() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        assert {"summary", "description"} == rule["annotations"].keys()
        assert "$labels.run" in rule["annotations"]["summary"]


def expressions() -> list[str]:
    """Return what the panels of the dashboard ask for, with its variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$run", ".*").replace("$__rate_interval", "5m") for text in found]


def test_every_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    assert len(expressions()) > 20
    for name, asked in (("dashboard", expressions()), ("wrong", ["sum by (run) (rate(x[5m])"])):
        rules = [{"record": f"expression:{at}", "expr": text} for at, text in enumerate(asked)]
        (tmp_path / name).write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    assert promtool("check", "rules", str(tmp_path / "dashboard")) == ""
    assert "parse error" in promtool("check", "rules", str(tmp_path / "wrong"))


def metrics(text: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", text))


def rays_own() -> set[str]:
    """Return the metrics that Ray's own dashboards ask for, and those that its agent tells of a node."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules"
    shown = "".join(path.read_text() for path in (folder / "metrics" / "dashboards").glob("*.py"))
    told = (folder / "reporter" / "reporter_agent.py").read_text()
    return metrics(shown) | {f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', told)}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_this_run_or_ray_exports() -> None:
    asked = metrics(" ".join(expressions()) + ALERTS.read_text()) | metrics(DASHBOARD.read_text())
    assert asked - EXPORTED - rays_own() == set()
    assert len(asked & EXPORTED) > 20


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert() -> None:
    """But those that only say where a number comes from."""
    asked = metrics(DASHBOARD.read_text() + ALERTS.read_text())
    assert EXPORTED - asked == {"ray_sclip_step", "ray_sclip_epoch", "ray_sclip_checkpoint_step"}


def lost(given: Any, read: Any, place: str = "") -> list[str]:
    """Return the places of values that are not there any more, or others."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [at for name in given for at in lost(given[name], read.get(name, "?"), f"{place}.{name}")]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        return [at for number, pair in pairs for at in lost(*pair, f"{place}[{number}]")]
    return [] if given == read else [place]


def as_grafana_reads_it(dashboard: dict[str, Any]) -> Any:
    """Return what is left of a dashboard in the types that Grafana publishes of its own schema."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafanas_own_types_know_every_key_of_the_dashboard() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert lost(dashboard, as_grafana_reads_it(dashboard)) == []


@pytest.mark.parametrize(
    ("place", "name"),
    [("panels.0", "titel"), ("panels.0.targets.0", "query_"), ("panels.9.options", "legendd")],
)
def test_a_key_that_grafana_does_not_know_is_seen(place: str, name: str) -> None:
    dashboard = inner = json.loads(DASHBOARD.read_text())
    for step in place.split("."):
        inner = inner[int(step) if step.isdigit() else step]
    inner[name] = "planted"
    (found,) = lost(dashboard, as_grafana_reads_it(dashboard))
    assert found.endswith(f".{name}")


def test_no_two_panels_lie_over_each_other_or_share_an_id() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)
