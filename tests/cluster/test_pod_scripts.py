"""What runs in a pod of the cluster beside Ray: the certificate before it starts, the notice before it ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.kustomized import commands
from support.paths import ROOT

SCRIPTS = ROOT / "cluster" / "kuberay" / "base"
SERVICE = "sclip-head-svc.sclip.svc.cluster.local"


def authority(folder: Path) -> Path:
    """Make an authority with the README's own command, as the Secret shows it to the pod."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make an authority with")
    readme = (ROOT / "cluster" / "kuberay" / "README.md").read_text(encoding="utf-8")
    (command,) = [words for words in commands(readme) if words[0] == "openssl"]
    folder.mkdir()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "ca.crt").rename(folder / "tls.crt")
    (folder / "ca.key").rename(folder / "tls.key")
    return folder


def certify(signed_by: Path, folder: Path, address: str) -> Path:
    """Run the init container's command for a pod."""
    folder.mkdir()
    command = [sys.executable, str(SCRIPTS / "pod_certificate.py"), "--authority", str(signed_by)]
    environment = os.environ | {"POD_IP": address, "FQ_RAY_IP": SERVICE}
    subprocess.run([*command, "--out", str(folder)], env=environment, check=True, timeout=60)
    return folder


def meet(server: Path, client: Path, called: str) -> None:
    """Let two pods shake hands, each asking for the other's certificate, as Ray does; `called` is the server."""
    contexts = []
    for purpose, pod in ((ssl.PROTOCOL_TLS_SERVER, server), (ssl.PROTOCOL_TLS_CLIENT, client)):
        context = ssl.SSLContext(purpose)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pod / "tls.crt", pod / "tls.key")
        context.load_verify_locations(pod / "ca.crt")
        contexts.append(context)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = contexts[0].wrap_bio(one, other, server_side=True)
    calling = contexts[1].wrap_bio(other, one, server_hostname=called)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (calling, serving):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue


def test_two_pods_of_one_authority_trust_each_other_by_address_and_by_service_name(tmp_path: Path) -> None:
    signer = authority(tmp_path / "authority")
    head, worker = (certify(signer, tmp_path / ip, ip) for ip in ("10.1.2.3", "10.1.2.4"))
    for called in ("10.1.2.3", SERVICE, "127.0.0.1", "localhost"):
        meet(head, worker, called)


def test_a_pod_at_another_address_than_its_certificates_is_refused(tmp_path: Path) -> None:
    signer = authority(tmp_path / "authority")
    head, worker = (certify(signer, tmp_path / ip, ip) for ip in ("10.1.2.3", "10.1.2.4"))
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        meet(head, worker, "10.1.2.5")


def test_a_pod_of_another_authority_is_refused(tmp_path: Path) -> None:
    head = certify(authority(tmp_path / "ours"), tmp_path / "head", "10.1.2.3")
    stranger = certify(authority(tmp_path / "theirs"), tmp_path / "stranger", "10.1.2.4")
    with pytest.raises(ssl.SSLError):
        meet(head, stranger, "10.1.2.3")


def test_a_pods_key_is_its_users_alone_and_the_authoritys_is_not_among_its_files(tmp_path: Path) -> None:
    pod = certify(authority(tmp_path / "authority"), tmp_path / "pod", "10.1.2.3")
    assert stat.S_IMODE((pod / "tls.key").stat().st_mode) == 0o600
    assert sorted(file.name for file in pod.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (pod / "tls.key").read_bytes() != (tmp_path / "authority" / "tls.key").read_bytes()


class Node:
    """A node as drain.py sees it: titles of its processes at each look, and what Ray was told."""

    def __init__(self, *looks: list[str]) -> None:
        self.looks = list(looks)
        self.told: list[list[str]] = []
        self.clock = 0.0

    def processes(self, _: list[str]) -> Iterator[Any]:
        """Show the processes of the next look, and of the last one ever after."""
        titles = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        for title in titles:
            process = type("Process", (), {})()
            process.info = {"cmdline": [title] if title else []}  # a kernel's own has none
            yield process

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.told.append(command)
        return subprocess.CompletedProcess(command, 0)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


def drained(node: Node, seconds: int, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run the hook on a node."""
    spec = importlib.util.spec_from_file_location("drain", SCRIPTS / "drain.py")
    assert spec
    assert spec.loader
    drain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drain)
    monkeypatch.setattr(drain.psutil, "process_iter", node.processes)
    monkeypatch.setattr(drain.subprocess, "run", node.run)
    monkeypatch.setattr(drain.time, "sleep", node.sleep)
    monkeypatch.setattr(drain.time, "monotonic", lambda: node.clock)
    monkeypatch.setattr(sys, "argv", ["drain.py", str(seconds)])
    assert drain.main() == 0
    return drain


RESTING = [
    "",
    "/usr/bin/bash",
    "raylet",
    "ray::IDLE",
    "ray::IDLE_SpillWorker",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
]


def test_a_node_without_work_ends_at_once_and_bothers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(RESTING)
    drained(node, 110, monkeypatch)
    assert node.told == []
    assert node.clock == 0


def test_a_node_with_a_trainer_gives_notice_and_waits_until_it_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = [*RESTING, "ray::RayTrainWorker"]
    node = Node(busy, busy, busy, RESTING)
    drained(node, 110, monkeypatch)
    (notice,) = node.told
    assert notice[-2:] == ["--deadline-remaining-seconds", "110"]
    assert 0 < node.clock < 110


def test_a_trainer_that_does_not_leave_is_waited_for_until_the_notice_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(["ray::RayTrainWorker"])
    drained(node, 110, monkeypatch)
    assert node.clock == 110


def test_the_notice_is_one_that_this_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.scripts.scripts import drain_node

    node = Node(["ray::RayTrainWorker"], RESTING)
    drained(node, 25, monkeypatch)
    ray, command, *options = node.told[0]
    assert (ray, command) == ("ray", drain_node.name)
    assert drain_node.make_context(command, options).params["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
