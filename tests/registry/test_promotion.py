"""The champion: better versions are promoted, worse ones refused, roll-backs restore, and each is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sclip.evaluate.result import EvaluationError, Example
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
from support.commands import command
from support.processes import free_port
from support.registered import RECALL, RELATION, Registry, evaluation

GATES = (f"{RELATION} >= champion - interval", f"{RECALL} >= champion - 0.01", f"{RELATION} >= 0.5")
GOOD = {RELATION: 0.70, RECALL: 0.43}
BETTER = {RELATION: 0.80, RECALL: 0.425}
WORSE = {RELATION: 0.75, RECALL: 0.30}

promote = command("promote")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry whose versions hold only their evaluations, since no test here loads a model."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "_save", lambda path, *_: path.mkdir() or path)
        yield Registry(folder, folder)


class Model:
    """A registered model for one test."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.client, self.uri, self.name, self._registry = registry.client, registry.uri, name, registry

    def add(
        self, scores: dict[str, float] | None, *gates: str, judged: bool = True, **measured: object
    ) -> str:
        """Register a version with scores and gates; judge it if it has gates."""
        version = self._registry.add(scores, *gates, name=self.name, **measured)  # type: ignore[arg-type]
        if gates and judged:
            decide(self.client, self.name, version)
        return version

    def tags(self, version: str) -> dict[str, str]:
        return self._registry.tags(version, self.name)

    def aliases(self) -> dict[str, str]:
        return self._registry.aliases(self.name)

    @property
    def champion(self) -> str | None:
        return self.aliases().get("champion")

    def promote(self, name: str, *arguments: object) -> int:
        """Run `sclip promote`; return its exit status."""
        return promote(name.format(name=self.name), "--tracking-uri", self.uri, *arguments)


@pytest.fixture
def model(registry: Registry, request: pytest.FixtureRequest) -> Model:
    return Model(registry, request.node.name.split("[")[0])


# By gates


def test_the_first_version_that_passes_and_a_better_one_are_promoted_with_their_record(model: Model) -> None:
    model.add({RELATION: 0.4, RECALL: 0.9}, *GATES)
    assert model.aliases() == {"candidate": "1"}
    model.add(GOOD, *GATES)
    assert model.aliases() == {"candidate": "2", "champion": "2"}
    version = model.add(BETTER, *GATES, judged=False)
    outcome = decide(model.client, model.name)
    assert (outcome.version, outcome.before, outcome.champion, outcome.promoted) == (version, "2", "3", True)
    assert model.aliases() == {"candidate": "3", "champion": "3"}
    tags = model.tags(version)
    assert datetime.fromisoformat(tags.pop("sclip.decided_at")).tzinfo is not None
    assert json.loads(tags.pop("sclip.gates")) == list(GATES)
    assert tags.items() >= {
        "sclip.decision": "promoted", "sclip.compared_with": "2", "sclip.replaced": "2",
        "sclip.gate.1":
            f"holds: {RELATION} >= champion - interval: 0.8000, at least 0.6800; champion 0.7000 (lower end 0.6800)",
        "sclip.gate.2": f"holds: {RECALL} >= champion - 0.01: 0.4250, at least 0.4200; champion 0.4300",
        "sclip.gate.3": f"holds: {RELATION} >= 0.5: 0.8000, at least 0.5000",
        RELATION: "0.8", "vg_relation/cases": "4",
    }.items()  # fmt: skip
    assert outcome.lines()[-1] == "version 3 is champion, after version 2"


def test_a_worse_version_is_refused_with_a_record_that_the_next_judgement_replaces(model: Model) -> None:
    model.add(GOOD, *GATES)
    version = model.add(WORSE, *GATES, judged=False)
    outcome = decide(model.client, model.name)
    assert not outcome.promoted
    assert model.aliases() == {"candidate": "2", "champion": "1"}
    tags = model.tags(version)
    refusal = f"fails: {RECALL} >= champion - 0.01: 0.3000, below 0.4200; champion 0.4300"
    assert (tags["sclip.decision"], tags["sclip.gate.2"]) == ("refused", refusal)
    assert "sclip.replaced" not in tags
    assert f" refused against version 1; {tags['sclip.gate.1']}; {refusal}; " in tags["sclip.history"]
    assert outcome.lines()[-1] == "version 2 was not promoted: version 1 stays champion"
    decide(model.client, model.name, version, [f"{RELATION} >= champion"])
    after = model.tags(version)
    assert after["sclip.decision"] == "promoted"
    assert [tag for tag in after if tag.startswith("sclip.gate.")] == ["sclip.gate.1"]
    first, second = after["sclip.history"].splitlines()
    assert first == tags["sclip.history"]
    assert second.endswith(f" promoted against version 1; {after['sclip.gate.1']}")


def test_a_champion_measured_on_other_cases_is_measured_again_and_then_compared(
    model: Model, tmp_path: Path
) -> None:
    model.add(GOOD, *GATES)
    model.add(BETTER, *GATES, cases=8)
    assert model.champion == "1"
    assert "sclip promote NAME@champion --evaluation FILE" in model.tags("2")["sclip.gate.1"]
    evaluation({RELATION: 0.6, RECALL: 0.4}, cases=8).write(tmp_path / "evaluation.json")
    assert model.promote("{name}@champion", "--evaluation", tmp_path / "evaluation.json") == 0
    assert model.tags("1")[RELATION] == "0.6"
    assert model.promote("{name}") == 0
    assert model.champion == "2"
    assert "champion 0.6000" in model.tags("2")["sclip.gate.1"]


def test_an_evaluation_of_other_weights_is_not_recorded(model: Model) -> None:
    model.add(GOOD, weights="1f")
    version = find(model.client, model.name, "1")
    with pytest.raises(
        RegistryError, match=f"of a model measured other weights than models:/{model.name}/1 has"
    ):
        record(model.client, version, evaluation(BETTER, weights="2e"))
    with pytest.raises(EvaluationError, match="evaluated on no benchmark"):
        record(model.client, version, evaluation({}))
    record(model.client, version, evaluation({RELATION: 0.8}, weights="1f"))
    tags = model.tags("1")
    assert tags[RELATION] == "0.8"
    assert RECALL not in tags  # the new evaluation has no such score


def test_a_version_keeps_its_evaluation_without_the_pictures(model: Model) -> None:
    measured = evaluation(GOOD)
    measured.results[0].examples.append(Example("1", "on", b"jpeg", []))
    record(model.client, find(model.client, model.name, model.add(GOOD)), measured)
    assert evaluation_of(model.client, find(model.client, model.name, "candidate")) == evaluation(GOOD)
    model.add(None)
    assert evaluation_of(model.client, find(model.client, model.name, "candidate")) is None


# By hand, and rolling back


def test_repeated_roll_backs_go_further_back_past_deleted_versions_and_repeated_champions(
    model: Model,
) -> None:
    for _ in range(3):
        model.add(GOOD, *GATES)
    promote_by_hand(model.client, model.name, "2", "once more")
    model.add(GOOD)
    model.client.set_registered_model_alias(model.name, "champion", "4")  # set by somebody else
    for _ in range(2):
        model.add(BETTER, *GATES)
    assert model.tags("5")["sclip.replaced"] == "4"
    model.client.delete_model_version(model.name, "5")
    walked = [model.champion]
    while model.champion != "1":
        roll_back(model.client, model.name)
        walked.append(model.champion)
    assert walked == ["6", "4", "2", "3", "2", "1"]
    with pytest.raises(RegistryError, match="no version was champion before 1: nothing to roll back to"):
        roll_back(model.client, model.name)


# As a command


def test_the_command_promotes_or_refuses_and_shows_the_figures(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model.add(GOOD, *GATES)
    model.add(WORSE)
    gate = ("--gate", f"{RECALL} >= champion")
    assert model.promote("{name}", *gate, "--dry-run") == 1
    assert "sclip.decision" not in model.tags("2")
    assert model.promote("{name}", *gate) == 1
    out = capsys.readouterr().out
    assert f"fails: {RECALL} >= champion: 0.3000, below 0.4300; champion 0.4300\n" in out
    assert "nothing was changed (--dry-run)" in out
    assert model.tags("2")["sclip.decision"] == "refused"
    assert model.promote("models:/{name}/2", "--gate", f"{RELATION} >= champion") == 0
    assert model.champion == "2"
    assert model.promote("{name}") == 0
    assert "version 2 is the champion already" in capsys.readouterr().out


def test_the_command_promotes_by_hand_and_rolls_back_with_the_reason_in_the_record(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model.add(GOOD, *GATES)
    model.add(WORSE, *GATES)
    arguments = ("{name}/2", "--force", "--why", "the recall file was cut")
    assert model.promote(*arguments, "--dry-run") == 0
    assert model.champion == "1"
    assert model.promote(*arguments) == 0
    tags = model.tags("2")
    assert (tags["sclip.decision"], tags["sclip.why"]) == ("promoted by hand", "the recall file was cut")
    assert "sclip.gate.1" not in tags
    back = ("{name}", "--rollback", "--why", "it is slow")
    assert model.promote(*back, "--dry-run") == 0
    assert model.champion == "2"
    assert model.promote(*back) == 0
    assert model.aliases() == {"candidate": "2", "champion": "1"}
    away, restored = model.tags("2"), model.tags("1")
    assert (away["sclip.decision"], restored["sclip.decision"]) == ("rolled back", "restored")
    assert away["sclip.why"] == "it is slow"
    assert away["sclip.history"].endswith("rolled back to version 1: it is slow")
    assert restored["sclip.history"].endswith("restored in place of 2: it is slow")
    assert restored["sclip.gate.1"].startswith("holds: ")
    assert model.promote("{name}/2", "--force", "--why", "it is fast again") == 0
    assert model.promote("{name}", "--rollback") == 0
    assert (model.tags("1")["sclip.why"], model.tags("2")["sclip.why"]) == ("", "")
    assert model.promote("{name}", "--rollback") == 2
    assert "nothing to roll back to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent",), "registered model absent cannot be read from"),
        (("{name}/7",), "models:/{name}/7 cannot be read from"),
        (("{name}@gone",), "has the alias 'gone'"),
        (("{name}",), "registered without gates: name some"),
        (("{name}", "--rollback"), "has no champion"),
        (("{name}", "--gate", "a >= b"), "--gate='a >= b': a gate is BENCHMARK/SCORE >= BOUND"),
        (("{name}", "--force"), "--force needs --why"),
        (("{name}", "--why", "x"), "--why needs --force or --rollback"),
        (("{name}", "--force", "--why", "x", "--gate", "a/b >= 1"), "ignore gates"),
        (("{name}", "--force", "--rollback", "--why", "x"), "choose one of them"),
        (("{name}/1", "--rollback"), "with --rollback, NAME alone"),
        (("{name}", "--evaluation", "absent.json"), "absent.json: holds no evaluation"),
        (("{name}", "--evaluation", "absent.json", "--dry-run"), "use them in two commands"),
        (("a/b/c",), "NAME, NAME/VERSION or NAME@ALIAS"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(
    model: Model, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not model.client.search_registered_models(f"name = '{model.name}'"):
        model.add(GOOD)
    assert model.promote(*arguments) == 2
    assert message.format(name=model.name) in capsys.readouterr().err
    assert model.aliases() == {"candidate": "1"}


def test_an_absent_store_is_reported_and_not_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote("structure-clip", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db") == 2
    assert "mlflow.db does not exist" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
    assert promote("structure-clip", "--tracking-uri", f"http://user:secret@127.0.0.1:{free_port()}") == 2
    refused = capsys.readouterr().err
    assert "Connection refused" in refused
    assert "secret" not in refused
