"""Versions of a registered model: registering, finding by number or alias, and downloading."""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.inference.scorer import Scorer
from sclip.registry import (
    RegistryError,
    connect,
    download,
    evaluation_of,
    find,
    record,
    register,
    register_once,
)
from support.registered import NAME, RELATION, Registry, evaluation
from support.small_model import CAPTIONS, small_scorer


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder, small_scorer().save(folder / "model"))
    registry.add({RELATION: 0.7})
    registry.add({RELATION: 0.8})
    return registry


@pytest.mark.parametrize("source", [f"models:/{NAME}@candidate", f"models:/{NAME}/1"])
def test_a_version_is_fetched_as_the_folder_that_was_registered(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    fetched = Scorer.load(download(source, registry.uri, tmp_path))
    assert fetched.encode_text(CAPTIONS).equal(small_scorer().encode_text(CAPTIONS))


@pytest.mark.parametrize("source", [f"models:/{NAME}@gone", f"models:/{NAME}/9"])
def test_an_absent_version_is_reported_in_one_line(registry: Registry, source: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=rf"{source} cannot be downloaded from sqlite:///") as raised:
        download(source, registry.uri, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_model_that_another_program_registered_is_refused(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    registry.client.create_registered_model("foreign")
    registry.client.create_model_version("foreign", str(tmp_path))
    with pytest.raises(RegistryError, match=r"models:/foreign/1 is not a Structure-CLIP model"):
        download("models:/foreign/1", registry.uri, tmp_path / "fetched")
    version = find(registry.client, "foreign", "1")
    measured = evaluation_of(registry.client, find(registry.client, NAME, "1"))
    assert evaluation_of(registry.client, version) is None
    assert measured is not None
    with pytest.raises(RegistryError, match="sclip did not register"):
        record(registry.client, version, measured)


def test_a_failed_registration_says_where_the_model_is(registry: Registry, tmp_path: Path) -> None:
    directory = small_scorer().save(tmp_path / "model")
    with pytest.raises(
        RegistryError, match=rf"'absent' was not registered in .*; the model is in {directory}"
    ):
        register(connect(registry.uri), "0" * 32, directory, "absent")
    assert not registry.client.search_registered_models("name = 'absent'")


def test_a_run_registers_the_same_weights_once_and_other_weights_again(
    registry: Registry, tmp_path: Path
) -> None:
    directory = small_scorer().save(tmp_path / "model")
    run = registry.client.create_run(registry.experiment).info.run_id

    def registered(weights: str) -> str:
        return register_once(
            registry.client, run, directory, "once", evaluation({RELATION: 0.7}, weights=weights), ()
        )

    assert registered("a") == "1"
    registry.client.delete_registered_model_alias("once", "candidate")
    assert registered("a") == "1"
    assert registry.aliases("once") == {"candidate": "1"}
    assert registered("b") == "2"
    assert [registered("a"), registry.aliases("once")] == ["1", {"candidate": "2"}]
