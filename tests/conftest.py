"""What all tests share: one real Ray cluster on loopback, which a head as a user starts it holds, and one parser."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools  # noqa: F401  (before any test imports pip, after which torch's compiler cannot import it any more)
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from sclip.scenegraph import Parser
from sclip.scenegraph import parser as parsing
from support.paths import ROOT
from support.ray_head import Head, ray_head

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", RAY_USAGE_STATS_ENABLED="0")
# Read when Ray is imported. The switch keeps Ray on loopback, see sclip.launch.cluster.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), GLOO_SOCKET_IFNAME="lo")
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
# Ray's workers give way to all else by default; the tests wait for them.
os.environ.update(RAY_worker_niceness="0")

# A rank that a signal ends tells in which call: the process that all ranks are forked from has this set.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

# No storage client looks for a machine in a cloud that would hand it credentials.
os.environ.update(AWS_EC2_METADATA_DISABLED="true")

# No test asserts a time. What passes on one machine passes on the next; other examples are tried wherever a developer
# runs the tests.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")

# The English pipeline, which takes a second to load, is loaded once for all parsers of this process.
parsing._load = functools.cache(parsing._load)


def starts_clusters(file: Path) -> bool:
    """Tell whether any test of a file does; of several processes one has all of these files."""
    return "mark.cluster" in file.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first."""
    clusters = {path: starts_clusters(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: not clusters[item.path])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give `pytest -n 2 --dist loadscope` files as scopes, and one scope for all that start clusters.

    Two clusters at once would share two cores, and what waits for a fault to be seen would wait too long.
    """
    return _OneCluster(config, log)


class _OneCluster(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if starts_clusters(ROOT / file) else file


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with ray_head("--num-cpus=4") as started:
        yield started


@pytest.fixture(scope="session")
def parser() -> Parser:
    """The English parser, which takes a second to load."""
    return Parser()


@pytest.fixture(scope="module")
def attached(head: Head) -> Iterator[None]:
    """Let the runs of a module attach to the head, as a driver with RAY_ADDRESS does."""
    import ray  # after the environment: Ray reads it when it is imported

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", head.address)
        yield
        ray.shutdown()
