"""The manifests of cluster/kuberay and cluster/mlflow, as Kustomize renders them: what Kubernetes and KubeRay take."""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from sclip.config.loader import keys
from support.kustomized import (
    CLUSTER,
    JOBS,
    KUBECTL,
    OVERLAYS,
    TARGETS,
    commands,
    documented_secrets,
    find,
    images,
    installed,
    pods,
    ray_cluster,
    rendered,
    require_kubectl,
)
from support.manifest_network import address_problems, policy_problems, reaches, selector_problems
from support.manifest_pods import GPU, mount_problems, probe_problems, ray_problems, safety_problems
from support.manifest_references import image_problems, reference_problems, references, secret_problems
from support.manifest_schemas import CRDS, core_problems, kuberay_problems
from support.paths import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="needs KubeRay's schemas beside the checkout")
every_target = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(autouse=True)
def _kubectl() -> None:
    require_kubectl()


@every_target
def test_kubernetes_takes_every_manifest_and_knows_every_field(target: str) -> None:
    assert core_problems(installed(target)) == []


@needs_crds
@every_target
def test_kuberay_takes_clusters_and_jobs_and_knows_every_field(target: str) -> None:
    assert kuberay_problems(installed(target)) == []


@every_target
def test_what_is_named_is_made_by_the_manifests_or_by_the_readme(target: str) -> None:
    assert reference_problems(installed(target), documented_secrets()) == []


def test_the_readme_makes_no_secret_that_nothing_reads() -> None:
    named = {
        name for target in TARGETS for _, kind, name, _ in references(installed(target)) if kind == "Secret"
    }
    assert documented_secrets().keys() == named


@every_target
def test_no_secret_stands_in_a_manifest(target: str) -> None:
    assert secret_problems(installed(target)) == []


@every_target
def test_images_have_versions_and_the_projects_own_are_named_once(target: str) -> None:
    assert image_problems(installed(target), images()) == []


def test_the_images_version_is_the_projects_and_rays_is_the_pinned_one() -> None:
    assert {image.rpartition(":")[2].rpartition("-")[0] for image in images()} == {VERSION}
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert {ray_cluster(rendered(target))["rayVersion"] for target in TARGETS} == {pinned[1]}


@every_target
def test_every_container_is_unprivileged_and_bounded(target: str) -> None:
    assert safety_problems(installed(target)) == []


@every_target
def test_every_container_is_probed_and_mounts_what_its_pod_has(target: str) -> None:
    assert probe_problems(installed(target)) + mount_problems(installed(target)) == []


@every_target
def test_selectors_find_their_pods_and_policies_open_what_is_listened_on(target: str) -> None:
    manifests = installed(target)
    assert selector_problems(manifests) + policy_problems(manifests) + address_problems(manifests) == []


REACHED = {
    ("head", "redis", 6379): True,
    ("parser", "redis", 6379): False,
    ("trainer", "redis", 6379): False,
    ("parser", "trainer", 41003): True,
    ("trainer", "head", 6379): True,
    ("head", "parser", 10002): True,
    ("submitter", "head", 8265): True,
    ("submitter", "head", 6379): False,
    ("submitter", "trainer", 10002): False,
    ("trainer", "mlflow", 5000): True,
    ("head", "mlflow", 5000): True,
    ("submitter", "mlflow", 5000): False,
    ("mlflow", "mlflow-postgres", 5432): True,
    ("head", "mlflow-postgres", 5432): False,
    ("mlflow", "head", 8265): False,
    ("redis", "head", 6379): False,
    ("mlflow-postgres", "mlflow", 5000): False,
}
"""Who may connect to whom, and at which port."""


@pytest.mark.parametrize(("source", "target", "port"), REACHED)
def test_a_pod_reaches_what_it_needs_and_nothing_else(source: str, target: str, port: int) -> None:
    manifests = installed("kuberay/jobs/gpu-multi-node")
    by_name = {pod.labels["app.kubernetes.io/component"]: pod for pod in pods(manifests)}
    assert reaches(manifests, by_name[source], by_name[target], port) is REACHED[source, target, port]


@every_target
def test_sizes_memory_and_grace_of_a_ray_cluster_fit_together(target: str) -> None:
    assert ray_problems(rendered(target)) == []


@every_target
def test_ray_talks_over_tls_with_a_token_and_keeps_its_state_in_redis(target: str) -> None:
    cluster = ray_cluster(rendered(target))
    assert cluster["authOptions"] == {"mode": "token", "secretName": "sclip-ray-token"}
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"].startswith("redis://sclip-redis:")
    for pod in pods(rendered(target)):
        if ".submitter" in pod.place or "Stateful" in pod.place:
            continue
        for container in pod.spec["containers"]:
            environment = {env["name"]: env.get("value") for env in container["env"]}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            files = [environment[f"RAY_TLS_{name}"] for name in ("SERVER_CERT", "SERVER_KEY", "CA_CERT")]
            assert environment["RAY_USE_TLS"] == "1"
            assert {Path(str(file)).parent for file in files} == {Path(mounts["tls"])}
            assert "authority" not in mounts, f"{pod.place}: the authority's key is where a run could read it"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_brings_the_cluster_of_its_overlay_and_ends_with_it(name: str) -> None:
    manifests = rendered(f"kuberay/jobs/{name}")
    job = find(manifests, "RayJob")["spec"]
    assert not [m for m in manifests if m["kind"] == "RayCluster"]
    assert job["shutdownAfterJobFinishes"]
    assert "run.name=" in job["entrypoint"], "started again, it must find its checkpoints"
    if name in OVERLAYS:
        assert job["rayClusterSpec"] == find(rendered(f"kuberay/overlays/{name}"), "RayCluster")["spec"]


def test_kueue_admits_a_gang_whole_or_not_at_all() -> None:
    job = find(rendered("kuberay/jobs/gpu-multi-node-gang"), "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "sclip"}
    assert job["spec"]["suspend"]
    assert not cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]


def test_the_three_sizes_differ_in_what_their_names_say() -> None:
    gpus = {}
    for name in OVERLAYS:
        groups = ray_cluster(rendered(f"kuberay/overlays/{name}"))["workerGroupSpecs"]
        limits = {
            g["groupName"]: g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in groups
        }
        most = {g["groupName"]: g["maxReplicas"] for g in groups}
        gpus[name] = sum(most[group] * int(limits[group].get(GPU, 0)) for group in most)
        assert all(group["minReplicas"] == 0 for group in groups), "a cluster without a run costs a head"
    assert gpus == {"cpu-small": 0, "gpu-single-node": 1, "gpu-multi-node": 64}


def _readme_commands(program: str) -> list[list[str]]:
    readme = (CLUSTER / "kuberay" / "README.md").read_text(encoding="utf-8")
    found = [[word for word in words if word != "&"] for words in commands(readme)]
    return [words for words in found if words[0] == program]


@pytest.mark.parametrize("command", _readme_commands("kubectl"), ids=" ".join)
def test_kubectl_knows_the_options_of_the_readmes_commands(command: list[str]) -> None:
    options = {word.partition("=")[0] for word in command if re.match(r"--?\w", word)}
    asked = [
        str(KUBECTL),
        *itertools.takewhile(lambda word: word.isalpha() or "-" in word[1:-1], command[1:]),
    ]
    asked = asked[: 4 if command[1:3] == ["create", "secret"] else 3 if command[1] == "config" else 2]
    shown = "".join(
        subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        for words in ([*asked, "--help"], [str(KUBECTL), "options"])
    )
    known = set(re.findall(r"(?<![\w-])--?[\w-]+(?==|:)", shown)) | set(
        re.findall(r"^ +(-\w),", shown, re.MULTILINE)
    )
    assert options <= known


def test_what_the_readme_applies_is_there() -> None:
    named = [w for command in _readme_commands("kubectl") for w in command if w.startswith("cluster/")]
    assert named
    for name in named:
        path = CLUSTER.parent / name
        assert path.is_file() or (path / "kustomization.yaml").is_file(), name


def test_ray_takes_the_readmes_submission_and_sclip_its_settings() -> None:
    from ray.dashboard.modules.job.cli import submit

    (command,) = _readme_commands("ray")
    assert command[:3] == ["ray", "job", "submit"]
    entrypoint = submit.make_context("submit", command[3:]).params["entrypoint"]
    settings = [word for word in entrypoint if "=" in word]
    job = find(rendered("kuberay/jobs/cpu-small"), "RayJob")["spec"]["entrypoint"].split()
    for words in (settings, [word for word in job if "=" in word]):
        assert {word.partition("=")[0] for word in words} <= keys().keys()
