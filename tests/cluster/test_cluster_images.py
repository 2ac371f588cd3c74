"""The image: what it is built from, which user it runs as, and its name. `make check` runs hadolint on it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

from support.cluster_files import CLUSTER, COMPOSE, DOCKERFILE, LAUNCHERS, images, instructions, pins, project
from support.paths import ROOT

ALL = instructions()
TARGETS = ["cpu", "gpu", "gpu-efa"]


def texts(name: str) -> list[str]:
    return [text for _, instruction, text in ALL if instruction == name]


def test_python_is_the_one_that_the_project_is_checked_with() -> None:
    (version,) = [match[1] for text in texts("FROM") if (match := re.match(r"python:(\S+)", text))]
    assert re.match(r"\d+\.\d+\.\d+-slim", version), f"{version}: pinned to its last digit"
    assert version.startswith("{}.{}.".format(*sys.version_info[:2]))
    assert f">={version.rpartition('.')[0]}" == project()["requires-python"]


def test_every_installed_package_is_constrained_and_runs_no_setup_script() -> None:
    installs = [one for text in texts("RUN") for one in re.findall(r"pip install ([^&|;]*)", text)]
    assert len(installs) >= 5
    for install in installs:
        own = "--no-deps /wheels/*.whl" in install
        assert own or {"--constraint", "constraints.txt", "--only-binary=:all:"} < set(install.split()), (
            install
        )
    for name, version in re.findall(r"([\w-]+)==([\w.]+)", DOCKERFILE.read_text()):
        assert pins()[name.lower()] == version


def test_installed_packages_are_named_by_the_project_and_pinned() -> None:
    (run,) = [text for text in texts("RUN") if "import tomllib" in text]
    command = [sys.executable, *shlex.split(run.partition(" > ")[0])[1:]]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == project()["dependencies"] + project()["optional-dependencies"]["cluster"]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[><=]", line)[0]).lower() for line in lines}
    assert names - pins().keys() == set()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_an_unprivileged_user_and_its_health_check_needs_no_token(target: str) -> None:
    last = {name: text for stage, name, text in ALL if stage in ("base", f"torch-{target}", target)}
    assert last["USER"] == "1000:1000", "a number: Kubernetes cannot tell that a name is not root"
    (port, path) = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", last["HEALTHCHECK"])[0]
    assert int(port) == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    assert path in PUBLIC_EXACT_PATHS
    assert "HOME=/tmp" in " ".join(texts("ENV")).split()
    assert "VOLUME" not in last
    assert "--chown" not in DOCKERFILE.read_text()


def test_the_efa_installer_runs_only_after_its_signature_is_verified() -> None:
    (run,) = [text for stage, name, text in ALL if (stage, name) == ("gpu-efa", "RUN")]
    steps = [step.strip().split()[0] for step in run.split("&&")]
    assert steps.index("gpg") < steps.index("grep") < steps.index("tar") < steps.index("./efa_installer.sh")
    (signer,) = [text for stage, _, text in ALL if stage == "gpu-efa" and text.startswith("EFA_SIGNER=")]
    assert re.fullmatch(r"EFA_SIGNER=[0-9A-F]{40}", signer)


def test_copied_files_exist_and_nothing_else_is_sent_to_the_build() -> None:
    copied = {source for text in texts("COPY") if "--from" not in text for source in text.split()[:-1]}
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    everything, *kept = [line for line in lines if not line.startswith("#")]
    assert everything == "*"
    assert {f"!{name.split('/')[0]}" for name in copied} == {line for line in kept if line.startswith("!")}
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_every_file_names_the_image_by_the_version_of_the_project() -> None:
    pages = [DOCKERFILE, COMPOSE, CLUSTER / "README.md", *LAUNCHERS.values()]
    named = {image.rpartition("/")[2] for page in pages for image in images(page.read_text())}
    assert named == {f"sclip:{project()['version']}-{target}" for target in TARGETS}
