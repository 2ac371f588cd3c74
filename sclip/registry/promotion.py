"""Decide which version is champion, and record why.

Before the alias `champion` moves, the decision and its figures are written to these tags of the versions concerned:

    sclip.decision      the last decision: promoted, refused, promoted by hand, rolled back, restored
    sclip.decided_at    the time of the last decision, UTC
    sclip.gate.N        one gate with the figures of both versions
    sclip.compared_with the champion when the gates were judged
    sclip.replaced      the champion that this version replaced
    sclip.why           the reason that a person wrote
    sclip.history       one line for each decision about the version

For `roll_back`, the registered model's tag `sclip.champions` lists all versions that were champion, oldest first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from sclip.config import parse_gate
from sclip.evaluate.result import Evaluation
from sclip.registry.judgement import Decision, judge
from sclip.registry.measured import evaluation_of
from sclip.registry.store import CANDIDATE, CHAMPION, RegistryError, find, find_alias, refusals
from sclip.registry.versions import GATES_TAG
from sclip.storage.masking import mask

CHAMPIONS_TAG = "sclip.champions"
_REMEMBERED = 500
"""Maximum number of versions in `sclip.champions`: MLflow limits a tag to 5,000 characters."""
_JUDGED = ("sclip.gate.", "sclip.compared_with", "sclip.replaced", "sclip.why")
"""Prefixes of a version's tags that are deleted when the version is judged or promoted again."""


@dataclass(frozen=True)
class Promotion:
    """The outcome of a decision about one version."""

    version: str
    before: str
    """The champion before the decision; empty if there was none."""
    champion: str
    """The champion after the decision; empty if there is none."""
    decision: Decision | None = None
    """None means that no gate was judged."""

    @property
    def promoted(self) -> bool:
        """Whether the version is now champion."""
        return self.champion == self.version

    def lines(self) -> list[str]:
        """Return the lines to print: one for each gate, then the outcome."""
        lines = [check.line() for check in self.decision.checks] if self.decision else []
        if self.promoted and self.before == self.version:
            return [*lines, f"version {self.version} is the champion already"]
        if self.promoted:
            after = f"after version {self.before}" if self.before else "the first"
            return [*lines, f"version {self.version} is champion, {after}"]
        stays = f"version {self.champion} stays champion" if self.champion else "there is no champion"
        return [*lines, f"version {self.version} was not promoted: {stays}"]


def decide(
    client: MlflowClient, model_name: str, version: str = CANDIDATE, gates: Sequence[str] = (), *, dry_run: bool = False
) -> Promotion:  # fmt: skip
    """Judge a version against the champion, make it champion if all gates hold, and record the decision.

    `version` is a number or an alias. If `gates` is empty, the gates that were registered with the version apply.
    A dry run judges, but changes and records nothing.

    Raises RegistryError if version, gates or store are missing or cannot be used, and ConfigError for a bad gate.
    """
    candidate, champion = find(client, model_name, version), find_alias(client, model_name, CHAMPION)
    before = str(champion.version) if champion else ""
    number = str(candidate.version)
    if number == before:
        return Promotion(number, before, before)
    texts = list(gates) or json.loads(candidate.tags.get(GATES_TAG, "[]"))
    if not texts:
        raise RegistryError(
            f"models:/{model_name}/{candidate.version} was registered without gates: name some "
            "(tracking.gates in the run's config, --gate here), or promote it by hand"
        )
    scores = (evaluation_of(client, champion) or Evaluation("", {}, [])) if champion else None
    decision = judge([parse_gate(text) for text in texts], evaluation_of(client, candidate), scores)
    outcome = Promotion(number, before, number if decision.passed else before, decision)
    if not dry_run:
        tags = {f"sclip.gate.{n}": check.line() for n, check in enumerate(decision.checks, start=1)}
        tags |= {"sclip.compared_with": before} if before else {}
        _apply(client, candidate, outcome, "promoted" if decision.passed else "refused", tags)
    return outcome


def promote_by_hand(
    client: MlflowClient, model_name: str, version: str, why: str, *, dry_run: bool = False
) -> Promotion:
    """Make a version champion whatever its scores, and record why. Raises RegistryError if this fails."""
    candidate, champion = find(client, model_name, version), find_alias(client, model_name, CHAMPION)
    number = str(candidate.version)
    outcome = Promotion(number, str(champion.version) if champion else "", number)
    if outcome.before != number and not dry_run:
        _apply(client, candidate, outcome, "promoted by hand", {"sclip.why": why})
    return outcome


def roll_back(client: MlflowClient, model_name: str, why: str = "", *, dry_run: bool = False) -> Promotion:
    """Make the previous champion the champion again. A second call goes back one more version.

    Raises RegistryError if there is no champion, or no earlier one that still exists.
    """
    champion = find_alias(client, model_name, CHAMPION)
    if champion is None:
        raise RegistryError(f"{model_name} has no champion that could be rolled back")
    past = _champions(client, model_name, champion.version)[:-1]
    while past and (before := _existing(client, model_name, past[-1])) is None:
        past.pop()
    if not past or before is None:
        raise RegistryError(
            f"{model_name}: no version was champion before {champion.version}: nothing to roll back to"
        )
    if not dry_run:
        with _refused(client, model_name):
            tags, reason = {"sclip.why": why}, f": {why}" if why else ""
            _record(client, champion, "rolled back", f"rolled back to version {before.version}{reason}", tags)
            _record(client, before, "restored", f"restored in place of {champion.version}{reason}", tags)
            # Write the tag before the alias: after a crash between them, `_champions` appends the champion.
            client.set_registered_model_tag(model_name, CHAMPIONS_TAG, ",".join(past))
            client.set_registered_model_alias(model_name, CHAMPION, before.version)
    return Promotion(str(before.version), str(champion.version), str(before.version))


def _existing(client: MlflowClient, model_name: str, version: str) -> ModelVersion | None:
    with _refused(client, model_name):
        versions = client.search_model_versions(f"name = '{model_name}' and version_number = {version}")
    return versions[0] if versions else None


def _champions(client: MlflowClient, model_name: str, champion: str) -> list[str]:
    """Return all earlier champions, oldest first, then `champion`, the current one. It is "" if there is none."""
    with _refused(client, model_name):
        tag = client.get_registered_model(model_name).tags.get(CHAMPIONS_TAG, "")
    past = tag.split(",") if tag else []
    # Another program may have set the alias, so the tag may lack the champion.
    return past if not champion or past[-1:] == [str(champion)] else [*past, str(champion)]


def _apply(
    client: MlflowClient, version: ModelVersion, outcome: Promotion, decision: str, tags: dict[str, str]
) -> None:
    """Replace the recorded judgement of a version, then move the alias if the version is promoted."""
    name = version.name
    with _refused(client, name):
        for tag in [tag for tag in version.tags if tag.startswith(_JUDGED)]:
            client.delete_model_version_tag(name, version.version, tag)
        against = f"against version {outcome.before}" if outcome.before else "without an earlier champion"
        checks = [check.line() for check in outcome.decision.checks] if outcome.decision else []
        line = "; ".join([f"{decision} {against}", *checks, *filter(None, [tags.get("sclip.why")])])
        if not outcome.promoted:
            _record(client, version, decision, line, tags)
            return
        champions = [*_champions(client, name, outcome.before), outcome.version][-_REMEMBERED:]
        replaced = {"sclip.replaced": outcome.before} if outcome.before else {}
        _record(client, version, decision, line, tags | replaced)
        client.set_registered_model_alias(name, CHAMPION, version.version)
        client.set_registered_model_tag(name, CHAMPIONS_TAG, ",".join(champions))


def _record(
    client: MlflowClient, version: ModelVersion, decision: str, line: str, tags: dict[str, str]
) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    history = "\n".join(filter(None, [version.tags.get("sclip.history", ""), f"{now} {line}"]))
    tags = {"sclip.decision": decision, "sclip.decided_at": now, "sclip.history": history} | tags
    for tag, value in tags.items():
        client.set_model_version_tag(version.name, version.version, tag, value)


def _refused(client: MlflowClient, model_name: str) -> AbstractContextManager[None]:
    return refusals(f"{model_name} in {mask(client.tracking_uri)} cannot be read or changed")
