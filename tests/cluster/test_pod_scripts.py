"""Scripts in the cluster's pods: the certificate before Ray starts, and the notice before the pod ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.scripts.scripts import drain_node

from support.command_lines import blocks, split
from support.paths import ROOT

SCRIPTS = ROOT / "cluster" / "kuberay" / "base"
SERVICE = "sclip-head-svc.sclip.svc.cluster.local"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority ("ours"), two pods certified by it, and a pod of another authority."""
    folder = tmp_path_factory.mktemp("pods")
    for name, *addresses in (("ours", "10.1.2.3", "10.1.2.4"), ("theirs", "10.1.2.5")):
        authority(folder / name)
        for address in addresses:
            certify(folder / name, folder / address, address)
    return folder


def authority(folder: Path) -> None:
    """Make an authority with the README's own command, in the layout that the Secret has in a pod."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make an authority with: apt-get install openssl")
    page = (ROOT / "cluster" / "kuberay" / "README.md").read_text()
    (command,) = [
        words for block in blocks(page) for words in split(block) if words[:2] == ["openssl", "req"]
    ]
    folder.mkdir()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "ca.crt").rename(folder / "tls.crt")
    (folder / "ca.key").rename(folder / "tls.key")


def certify(signer: Path, folder: Path, address: str) -> None:
    """Run the init container's command for a pod."""
    folder.mkdir()
    command = [sys.executable, str(SCRIPTS / "pod_certificate.py"), "--authority", str(signer)]
    environment = os.environ | {"POD_IP": address, "FQ_RAY_IP": SERVICE}
    subprocess.run([*command, "--out", str(folder)], env=environment, check=True, timeout=60)


def meet(server: Path, client: Path, called: str) -> None:
    """Let two pods shake hands as Ray does, each checking the other's certificate; `called` is the server's name."""
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


def test_two_pods_of_one_authority_trust_each_other_by_address_and_by_service_name(folder: Path) -> None:
    for called in ("10.1.2.3", SERVICE, "127.0.0.1", "localhost"):
        meet(folder / "10.1.2.3", folder / "10.1.2.4", called)
    # The server has another address than its certificate, or the client is from another authority.
    for client, called, refusal in (
        ("10.1.2.4", "10.1.2.5", "IP address mismatch"),
        ("10.1.2.5", "10.1.2.3", "certificate verify failed"),
    ):
        with pytest.raises(ssl.SSLError, match=refusal):
            meet(folder / "10.1.2.3", folder / client, called)


def test_a_pods_key_is_readable_by_its_user_only_and_the_authoritys_key_is_not_in_the_pod(
    folder: Path,
) -> None:
    pod = folder / "10.1.2.3"
    assert stat.S_IMODE((pod / "tls.key").stat().st_mode) == 0o600
    assert sorted(file.name for file in pod.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (pod / "tls.key").read_bytes() != (folder / "ours" / "tls.key").read_bytes()


def drained(looks: list[list[str]], seconds: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], float]:
    """Run the hook on a node with these process titles at each look; return Ray's commands and the time taken."""
    spec = importlib.util.spec_from_file_location("drain", SCRIPTS / "drain.py")
    assert spec
    assert spec.loader
    drain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drain)
    remaining, commands, clock = iter(looks), [], [0.0]

    def processes(_: list[str]) -> list[Any]:  # kernel threads have no command; the last look repeats
        titles = next(remaining, looks[-1])
        return [SimpleNamespace(info={"cmdline": [title] if title else []}) for title in titles]

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(drain.psutil, "process_iter", processes)
    monkeypatch.setattr(drain.subprocess, "run", run)
    monkeypatch.setattr(drain.time, "sleep", lambda seconds: clock.append(clock[-1] + seconds))
    monkeypatch.setattr(drain.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(sys, "argv", ["drain.py", str(seconds)])
    assert drain.main() == 0
    return commands, clock[-1]


TRAINER = "ray::RayTrainWorker"
RESTING = ["", "/usr/bin/bash", "raylet", "ray::IDLE", "ray::IDLE_SpillWorker", "ray::DashboardAgent",
           "ray::RuntimeEnvAgent"]  # fmt: skip


def test_a_node_without_work_ends_at_once_and_a_trainer_gives_notice_and_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert drained([RESTING], 110, monkeypatch) == ([], 0)
    busy = [*RESTING, TRAINER]
    (notice,), waited_s = drained([busy, busy, busy, RESTING], 110, monkeypatch)
    assert 0 < waited_s < 110
    assert notice[-2:] == ["--deadline-remaining-seconds", "110"]
    assert notice[:2] == ["ray", drain_node.name]
    options = drain_node.make_context("drain-node", notice[2:]).params  # Ray's own parser accepts it
    assert options["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert drained([[TRAINER]], 110, monkeypatch)[1] == 110  # until the notice runs out
