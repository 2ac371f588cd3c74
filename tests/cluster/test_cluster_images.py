"""The image: what it is built of, whom it runs as, how it is named."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.cluster_files import (
    CLUSTER,
    COMPOSE,
    DOCKERFILE,
    LAUNCHERS,
    images,
    instructions,
    of_target,
    pins,
    program,
    project,
)
from support.paths import ROOT

TARGETS = ["cpu", "gpu"]


def lint(dockerfile: str) -> str:
    done = subprocess.run([program("hadolint"), "-"], input=dockerfile, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_linter_has_nothing_to_say() -> None:
    assert lint(DOCKERFILE.read_text()) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ("FROM python:3.11.15-slim-bookworm", "FROM python:latest", "DL3007"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ("COPY jobs jobs", "COPPY jobs jobs", "unexpected"),
        ('ENTRYPOINT ["tini", "-g", "--"]', "ENTRYPOINT tini -g --", "DL3025"),
    ],
)
def test_the_linter_finds_what_is_wrong(right: str, wrong: str, code: str) -> None:
    text = DOCKERFILE.read_text()
    assert right in text
    assert code in lint(text.replace(right, wrong))


def test_python_is_the_one_that_the_project_is_checked_with() -> None:
    (base,) = {
        i.text.split()[0] for i in instructions(DOCKERFILE.read_text()) if ":" in i.text and i.name == "FROM"
    }
    name, _, version = base.partition(":")
    assert name == "python"
    assert re.match(r"\d+\.\d+\.\d+-slim", version), f"{version}: pinned to its last digit"
    assert version.startswith("{}.{}.".format(*sys.version_info[:2]))
    assert f">={version.rpartition('.')[0]}" == project()["requires-python"]


def test_everything_that_is_installed_has_the_version_of_the_constraints() -> None:
    installs = [
        command
        for i in instructions(DOCKERFILE.read_text())
        if i.name == "RUN"
        for command in re.findall(r"pip install ([^&|;]*)", i.text)
    ]
    assert len(installs) >= 5
    for install in installs:
        own = "--no-deps /wheels/*.whl" in install
        assert own or "--constraint constraints.txt" in install, install
        assert own or "--only-binary=:all:" in install, f"{install}: would run what a source package says"
    for name, version in re.findall(r"([\w-]+)==([\w.]+)", DOCKERFILE.read_text()):
        assert pins()[name.lower()] == version


def test_what_is_installed_is_named_by_the_project() -> None:
    (run,) = [
        i.text
        for i in instructions(DOCKERFILE.read_text())
        if "/requirements.txt" in i.text and "import" in i.text
    ]
    script = shlex.split(run.partition(" > ")[0])[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    extra = project()["optional-dependencies"]["cluster"]
    assert done.stdout.splitlines() == project()["dependencies"] + extra
    for line in done.stdout.split():
        assert re.sub(r"[-_.]+", "-", re.split(r"[\[><=]", line)[0]).lower() in pins(), (
            f"{line}: without a pin"
        )


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_nobody_special_has_a_check_and_one_folder_to_write_to(target: str) -> None:
    last = {i.name: i.text for i in of_target(target)}
    assert last["USER"] == "1000:1000", "a number: Kubernetes cannot tell that a name is not root"
    assert "http://127.0.0.1:52365/api/healthz" in last["HEALTHCHECK"]
    text = " ".join(i.text for i in of_target(target) if i.name == "ENV")
    assert dict(part.split("=", 1) for part in shlex.split(text))["HOME"] == "/tmp"
    assert not [i for i in of_target(target) if i.name == "VOLUME" or "--chown" in i.text]


def test_the_check_asks_what_ray_answers_on_every_node_without_a_token() -> None:
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    (check,) = [i.text for i in instructions(DOCKERFILE.read_text()) if i.name == "HEALTHCHECK"]
    port, path = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", check).groups()  # type: ignore[union-attr]
    assert int(port) == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    assert path in PUBLIC_EXACT_PATHS


def test_the_targets_differ_in_torch_alone() -> None:
    def rest(target: str) -> list[tuple[str, str]]:
        return [
            (i.name, i.text) for i in of_target(target) if i.stage in (target, "base") and i.name != "FROM"
        ]

    assert rest("cpu") == rest("gpu")


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    copied = {
        source
        for i in instructions(DOCKERFILE.read_text())
        if i.name == "COPY" and "--from" not in i.text
        for source in i.text.split()[:-1]
    }
    kept = [
        line
        for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert kept[0] == "*"
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_every_file_names_the_image_by_the_version_of_the_project() -> None:
    named = {
        image
        for path in [DOCKERFILE, COMPOSE, CLUSTER / "README.md", *LAUNCHERS.values()]
        for image in images(path.read_text())
    }
    assert {image.rpartition("/")[2] for image in named} == {
        f"sclip:{project()['version']}-{target}" for target in TARGETS
    }
