"""Who is champion: a better version is promoted, a worse one refused, a roll-back restores, each with its record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sclip.evaluate.result import EvaluationError
from sclip.registry import (
    RegistryError,
    decide,
    evaluation_of,
    find,
    promote_by_hand,
    record,
    roll_back,
    versions,
)
from support.jobs_here import job_here
from support.processes import free_port
from support.registered import RECALL, RELATION, Registry, evaluation

GATES = (f"{RELATION} >= champion - interval", f"{RECALL} >= champion - 0.01", f"{RELATION} >= 0.5")
GOOD = {RELATION: 0.70, RECALL: 0.43}
BETTER = {RELATION: 0.80, RECALL: 0.425}
WORSE = {RELATION: 0.75, RECALL: 0.30}

promote = job_here("promote")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry whose versions hold nothing but their evaluation: no test here loads a model."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "_save", lambda path, *_: path.mkdir() or path)
        yield Registry(folder, folder)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of this test's own."""
    return str(request.node.name.split("[")[0])


@pytest.fixture
def add(registry: Registry, name: str) -> Callable[..., str]:
    """Register a version of these scores and gates, and judge it where it has gates."""

    def added(scores: dict[str, float] | None, *gates: str, **measured: object) -> str:
        version = registry.add(scores, *gates, name=name, **measured)  # type: ignore[arg-type]
        if gates:
            decide(registry.client, name, version)
        return version

    return added


def champion(registry: Registry, name: str) -> str | None:
    return registry.aliases(name).get("champion")


# By gates


def test_the_first_version_that_passes_its_absolute_gates_is_champion(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add({RELATION: 0.4, RECALL: 0.9}, *GATES)
    assert registry.aliases(name) == {"candidate": "1"}
    add(GOOD, *GATES)
    assert registry.aliases(name) == {"candidate": "2", "champion": "2"}


def test_a_better_version_is_promoted_with_its_record(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD, *GATES)
    version = registry.add(BETTER, *GATES, name=name)
    outcome = decide(registry.client, name)
    assert (outcome.version, outcome.before, outcome.champion, outcome.promoted) == (version, "1", "2", True)
    assert registry.aliases(name) == {"candidate": "2", "champion": "2"}
    tags = registry.tags(version, name)
    assert tags["sclip.decision"] == "promoted"
    assert (tags["sclip.compared_with"], tags["sclip.replaced"]) == ("1", "1")
    assert tags["sclip.gate.1"] == (
        f"holds: {RELATION} >= champion - interval: 0.8000, at least 0.6800; champion 0.7000 from 0.6800"
    )
    assert (
        tags["sclip.gate.2"]
        == f"holds: {RECALL} >= champion - 0.01: 0.4250, at least 0.4200; champion 0.4300"
    )
    assert tags["sclip.gate.3"] == f"holds: {RELATION} >= 0.5: 0.8000, at least 0.5000"
    assert datetime.fromisoformat(tags["sclip.decided_at"]).tzinfo is not None
    assert (tags[RELATION], tags["vg_relation/cases"]) == ("0.8", "4")
    assert outcome.lines()[-1] == "version 2 is champion, after version 1"


def test_a_worse_version_is_refused_with_its_record(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD, *GATES)
    version = registry.add(WORSE, *GATES, name=name)
    outcome = decide(registry.client, name)
    assert not outcome.promoted
    assert registry.aliases(name) == {"candidate": "2", "champion": "1"}
    tags = registry.tags(version, name)
    refusal = f"fails: {RECALL} >= champion - 0.01: 0.3000, below 0.4200; champion 0.4300"
    assert tags["sclip.decision"] == "refused"
    assert tags["sclip.gate.2"] == refusal
    assert tags["sclip.gate.1"].startswith("holds: ")
    assert "sclip.replaced" not in tags
    assert f"refused beside version 1; {tags['sclip.gate.1']}; {refusal}; " in tags["sclip.history"]
    assert outcome.lines()[-1] == "version 2 was refused as champion: version 1 stays"


def test_the_next_judgement_replaces_the_record_and_keeps_the_history(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD, *GATES)
    version = add(WORSE, *GATES)
    decide(registry.client, name, version, [f"{RELATION} >= champion"])
    tags = registry.tags(version, name)
    assert tags["sclip.decision"] == "promoted"
    assert [tag for tag in tags if tag.startswith("sclip.gate.")] == ["sclip.gate.1"]
    first, second = tags["sclip.history"].splitlines()
    assert " refused beside version 1; " in first
    assert second.endswith(f" promoted beside version 1; {tags['sclip.gate.1']}")


def test_without_gates_a_version_stays_candidate_and_judging_it_is_an_error(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD)
    with pytest.raises(RegistryError, match="registered without gates: give some"):
        decide(registry.client, name)
    assert registry.aliases(name) == {"candidate": "1"}


def test_a_champion_of_other_cases_is_measured_again_and_then_compared(
    registry: Registry, name: str, add: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(GOOD, *GATES)
    add(BETTER, *GATES, cases=8)
    assert champion(registry, name) == "1"
    assert "jobs/promote.py NAME@champion --evaluation FILE" in registry.tags("2", name)["sclip.gate.1"]
    evaluation({RELATION: 0.6, RECALL: 0.4}, cases=8).write(tmp_path / "evaluation.json")
    arguments = (f"{name}@champion", "--uri", registry.uri, "--evaluation", tmp_path / "evaluation.json")
    assert promote(*arguments) == 0
    assert registry.tags("1", name)[RELATION] == "0.6"
    assert promote(name, "--uri", registry.uri) == 0
    assert champion(registry, name) == "2"
    assert "champion 0.6000" in registry.tags("2", name)["sclip.gate.1"]


def test_an_evaluation_of_other_weights_is_not_recorded(registry: Registry, name: str) -> None:
    registry.add(GOOD, name=name, weights="1f")
    version = find(registry.client, name, "1")
    with pytest.raises(RegistryError, match=f"of a model is of other weights than models:/{name}/1 has"):
        record(registry.client, version, evaluation(BETTER, weights="2e"))
    with pytest.raises(EvaluationError, match="evaluated on no benchmark"):
        record(registry.client, version, evaluation({}))
    record(registry.client, version, evaluation({RELATION: 0.8}, weights="1f"))
    tags = registry.tags("1", name)
    assert tags[RELATION] == "0.8"
    assert RECALL not in tags  # the new evaluation has no such score


def test_a_version_keeps_its_evaluation_without_the_pictures(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD)
    kept = evaluation_of(registry.client, find(registry.client, name, "candidate"))
    assert kept == evaluation(GOOD)
    registry.add(None, name=name)
    assert evaluation_of(registry.client, find(registry.client, name, "candidate")) is None


# By hand, and back


def test_a_roll_back_restores_the_version_before_with_its_record(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD, *GATES)
    add(BETTER, *GATES)
    outcome = roll_back(registry.client, name, "it is slow")
    assert (outcome.before, outcome.champion) == ("2", "1")
    assert registry.aliases(name) == {"candidate": "2", "champion": "1"}
    away, back = registry.tags("2", name), registry.tags("1", name)
    assert (away["sclip.decision"], back["sclip.decision"]) == ("rolled back", "restored")
    assert away["sclip.why"] == "it is slow"
    assert away["sclip.history"].endswith("rolled back to version 1: it is slow")
    assert back["sclip.history"].endswith("restored in place of 2: it is slow")
    assert away["sclip.gate.1"].startswith("holds: ")


def test_repeated_roll_backs_walk_further_back_also_over_a_version_that_was_champion_twice(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    for _ in range(3):
        add(GOOD, *GATES)
    promote_by_hand(registry.client, name, "2", "once more")
    walked = [champion(registry, name)]
    for _ in range(3):
        roll_back(registry.client, name)
        walked.append(champion(registry, name))
    assert walked == ["2", "3", "2", "1"]
    with pytest.raises(RegistryError, match="no version was champion before 1: nothing to roll back to"):
        roll_back(registry.client, name)


def test_a_roll_back_passes_over_versions_that_are_gone(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    for _ in range(3):
        add(GOOD, *GATES)
    registry.client.delete_model_version(name, "2")
    roll_back(registry.client, name)
    assert champion(registry, name) == "1"


def test_a_champion_whose_alias_somebody_set_elsewhere_is_part_of_the_way_back(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD, *GATES)
    add(GOOD)
    registry.client.set_registered_model_alias(name, "champion", "2")
    add(BETTER, *GATES)
    assert registry.tags("3", name)["sclip.replaced"] == "2"
    roll_back(registry.client, name)
    assert champion(registry, name) == "2"
    roll_back(registry.client, name)
    assert champion(registry, name) == "1"


def test_without_a_champion_there_is_nothing_to_roll_back(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    add(GOOD)
    with pytest.raises(RegistryError, match="has no champion"):
        roll_back(registry.client, name)


# As a command


def test_the_command_promotes_refuses_and_says_why_figure_by_figure(
    registry: Registry, name: str, add: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--uri", registry.uri)
    add(GOOD, *GATES)
    add(WORSE)
    gate = ("--gate", f"{RECALL} >= champion")
    assert promote(name, *store, *gate, "--dry-run") == 1
    assert "sclip.decision" not in registry.tags("2", name)
    assert promote(name, *store, *gate) == 1
    out = capsys.readouterr().out
    assert f"fails: {RECALL} >= champion: 0.3000, below 0.4300; champion 0.4300\n" in out
    assert "nothing was changed (--dry-run)" in out
    assert registry.tags("2", name)["sclip.decision"] == "refused"
    assert promote(f"models:/{name}/2", *store, "--gate", f"{RELATION} >= champion") == 0
    assert champion(registry, name) == "2"
    assert promote(name, *store) == 0
    assert "version 2 is the champion already" in capsys.readouterr().out


def test_the_command_promotes_by_hand_and_rolls_back_with_the_reason(
    registry: Registry, name: str, add: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--uri", registry.uri)
    add(GOOD, *GATES)
    add(WORSE, *GATES)
    by_hand = (f"{name}/2", *store, "--force", "--why", "the recall file was cut")
    assert promote(*by_hand, "--dry-run") == 0
    assert champion(registry, name) == "1"
    assert promote(*by_hand) == 0
    tags = registry.tags("2", name)
    assert (tags["sclip.decision"], tags["sclip.why"]) == ("promoted by hand", "the recall file was cut")
    assert "sclip.gate.1" not in tags
    assert promote(name, *store, "--rollback", "--dry-run") == 0
    assert champion(registry, name) == "2"
    assert promote(name, *store, "--rollback") == 0
    assert champion(registry, name) == "1"
    assert promote(name, *store, "--rollback") == 2
    assert "nothing to roll back to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("absent",), "absent is no registered model"),
        (("{name}/7",), "models:/{name}/7 is not in"),
        (("{name}@gone",), "has the alias 'gone'"),
        (("{name}",), "without gates"),
        (("{name}", "--gate", "a >= b"), "--gate='a >= b': a gate is BENCHMARK/SCORE >= NUMBER"),
        (("{name}", "--force"), "--force needs --why"),
        (("{name}", "--why", "x"), "--why is recorded with --force or --rollback only"),
        (("{name}", "--force", "--why", "x", "--gate", "a/b >= 1"), "ask no gates"),
        (("{name}", "--force", "--rollback", "--why", "x"), "one of them"),
        (("{name}/1", "--rollback"), "with --rollback NAME"),
        (("{name}", "--evaluation", "absent.json"), "absent.json: holds no evaluation"),
        (("{name}", "--evaluation", "absent.json", "--dry-run"), "first one, then the other"),
        (("a/b/c",), "NAME, NAME/VERSION or NAME@ALIAS"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(
    registry: Registry, name: str, arguments: tuple[str, ...], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not registry.client.search_registered_models(f"name = '{name}'"):
        registry.add(GOOD, name=name)
    assert promote(*(text.format(name=name) for text in arguments), "--uri", registry.uri) == 2
    assert found.format(name=name) in capsys.readouterr().err
    assert registry.aliases(name) == {"candidate": "1"}


def test_a_store_that_is_not_there_is_told_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote("structure-clip", "--uri", f"sqlite:///{tmp_path}/mlflow.db") == 2
    assert "no MLflow store" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
    assert promote("structure-clip", "--uri", f"http://user:secret@127.0.0.1:{free_port()}") == 2
    refused = capsys.readouterr().err
    assert "Connection refused" in refused
    assert "secret" not in refused


def test_the_gates_of_the_config_stay_with_the_version(
    registry: Registry, name: str, add: Callable[..., str]
) -> None:
    version = registry.add(GOOD, *GATES, name=name)
    assert json.loads(registry.tags(version, name)["sclip.gates"]) == list(GATES)
