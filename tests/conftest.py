"""Fixtures for all tests: one real Ray cluster on loopback, with a head started as a user starts it, and one parser."""

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
# Ray reads its variables on import. RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 keeps it on loopback, see sclip.launch.cluster.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), GLOO_SOCKET_IFNAME="lo")
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
# By default Ray lowers the CPU priority of its workers. The tests wait for the workers, so keep it.
os.environ.update(RAY_worker_niceness="0")

# A rank that dies of a signal prints its stack. Ranks inherit this from the process that they are forked from.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

# Keep storage clients from asking a cloud's metadata service for credentials.
os.environ.update(AWS_EC2_METADATA_DISABLED="true")

# No test asserts a time, so there is no deadline. CI draws the same examples every time; developers' runs draw new
# ones.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")

# All parsers of this process share one English pipeline, which takes a second to load.
parsing._load = functools.cache(parsing._load)


def starts_clusters(file: Path) -> bool:
    """Return whether any test of a file starts a cluster. One xdist process runs all such files."""
    return "mark.cluster" in file.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put cluster tests first, as they take longest."""
    clusters = {path: starts_clusters(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: not clusters[item.path])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Make each file a scope for `pytest -n 2 --dist loadscope`, and all files that start clusters one scope.

    Two clusters at once would share two cores, and tests that wait for a fault would wait too long.
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
    """Let the runs of a module attach to the head through RAY_ADDRESS, as a driver does."""
    import ray  # imported here, after the environment is set, because Ray reads it on import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", head.address)
        yield
        ray.shutdown()
