"""Kubernetes and KubeRay accept the manifests of cluster/kuberay and cluster/mlflow as Kustomize renders them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.cluster_files import pins, project
from support.command_lines import understand
from support.kustomized import JOBS, SIZES, TARGETS, find, installed, pods, ray_cluster, rendered
from support.manifest_rules import (
    EFA,
    GPU,
    PAGES,
    RDMA,
    documented_secrets,
    problems,
    project_images,
    references,
)
from support.manifest_schemas import CRDS, kuberay_problems, pod_schema_problems

every_target = pytest.mark.parametrize("target", TARGETS)


@every_target
def test_manifests_installed_together_break_no_rule(target: str) -> None:
    assert problems(installed(target)) == []


@every_target
def test_kubernetes_knows_every_field_of_rays_pods(target: str) -> None:
    assert list(pod_schema_problems(rendered(target))) == []


@pytest.mark.skipif(not CRDS.is_dir(), reason="no schemas of KubeRay in ../shared/schemas")
@every_target
def test_kuberay_takes_clusters_and_jobs_and_knows_every_field(target: str) -> None:
    assert list(kuberay_problems(rendered(target))) == []


def test_the_readme_makes_no_secret_that_nothing_reads() -> None:
    named = {
        name for target in TARGETS for kind, name, _ in references(installed(target)) if kind == "Secret"
    }
    assert documented_secrets().keys() == named


def test_the_images_version_is_the_projects_and_rays_is_the_pinned_one() -> None:
    assert {re.split("[:-]", image)[1] for image in project_images()} == {project()["version"]}
    assert {ray_cluster(rendered(target))["rayVersion"] for target in TARGETS} == {pins()["ray"]}


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
    understand(shlex.split(job["entrypoint"].replace("/opt/sclip/", "")))
    if name in SIZES:
        assert job["rayClusterSpec"] == find(rendered(f"kuberay/overlays/{name}"), "RayCluster")["spec"]


def test_kueue_admits_a_gang_whole_or_not_at_all() -> None:
    job = find(rendered("kuberay/jobs/gpu-multi-node-gang"), "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "sclip"}
    assert job["spec"]["suspend"]
    assert not cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]


@pytest.mark.parametrize(("name", "gpus"), zip(SIZES, (0, 1, 64), strict=True))
def test_the_three_sizes_differ_in_what_their_names_say(name: str, gpus: int) -> None:
    most = 0
    for group in ray_cluster(rendered(f"kuberay/overlays/{name}"))["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        most += group["maxReplicas"] * int(container["resources"]["limits"].get(GPU, 0))
        assert group["minReplicas"] == 0, "a cluster without a run costs a head"
    assert most == gpus


@pytest.mark.parametrize(
    ("name", "devices", "image"),
    [("efa", {EFA: "4", PAGES: "5120Mi"}, "-gpu-efa"), ("rdma", {RDMA: "1"}, "-gpu")],
)
def test_a_fast_network_changes_only_the_trainers(name: str, devices: dict[str, str], image: str) -> None:
    plain, fast = (ray_cluster(rendered(f"kuberay/overlays/gpu-multi-node{end}")) for end in ("", f"-{name}"))
    pod, before = (cluster["workerGroupSpecs"][1]["template"]["spec"] for cluster in (fast, plain))
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["image"].endswith(image)
    for kind in ("requests", "limits"):
        had = before["containers"][0]["resources"][kind]
        assert pod["containers"][0]["resources"][kind] == had | devices
    fast["workerGroupSpecs"][1]["template"]["spec"] = before
    assert fast == plain
