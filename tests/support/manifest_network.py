"""Compute from network policies which pods may connect to which; no linter does this."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from support.kustomized import Manifest, pods

NAMESPACE, COMPONENT = "kubernetes.io/metadata.name", "app.kubernetes.io/component"
RAY = dict.fromkeys(("head", "parser", "trainer"), "all")
OUT = {"dns": "dns"}
REACHED = {
    "head": OUT | RAY | {"redis": "redis", "mlflow": "http", "internet": "api https"},
    "parser": OUT | RAY | {"mlflow": "http", "internet": "https"},
    "trainer": OUT | RAY | {"mlflow": "http", "internet": "https"},
    "submitter": OUT | {"head": "dashboard"},
    "redis": OUT,
    "mlflow": OUT | {"mlflow-postgres": "postgres", "internet": "https"},
    "mlflow-postgres": OUT,
    "operator": {"head": "dashboard"},
    "prometheus": dict.fromkeys(RAY, "metrics"),
    "stranger": {},
}
"""Allowed connections: source, target, and ports of the target. No pod may reach a cloud's metadata server."""


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod in a namespace, or an address outside the cluster."""

    namespace: str = "sclip"
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str = ""

    def within(self, block: str) -> bool:
        return bool(self.address) and ip_address(self.address) in ip_network(block)

    def matches(self, allowed: Manifest) -> bool:
        if block := allowed.get("ipBlock"):
            return self.within(block["cidr"]) and not any(map(self.within, block.get("except", ())))
        namespace = allowed.get("namespaceSelector", {"matchLabels": {NAMESPACE: "sclip"}})
        chosen = selects(namespace, {NAMESPACE: self.namespace}) and not self.address
        return chosen and selects(allowed.get("podSelector", {}), self.labels)

    def may(self, way: str, other: Peer, port: int, policies: list[Manifest]) -> bool:
        """Return whether our policies let this peer receive ("ingress") or send ("egress") at a port."""
        own = [
            p
            for p in policies
            if way.capitalize() in p["policyTypes"] and selects(p["podSelector"], self.labels)
        ]
        ends = "from" if way == "ingress" else "to"
        return self.namespace != "sclip" or not own or any(
            (ends not in rule or any(other.matches(one) for one in rule[ends]))
            and ("ports" not in rule or port in [one["port"] for one in rule["ports"]])
            for policy in own for rule in policy.get(way, ())
        )  # fmt: skip


OUTSIDE = {
    "operator": Peer("ray-system", {COMPONENT: "kuberay-operator"}),
    "prometheus": Peer("monitoring"),
    "stranger": Peer("default"),
    "dns": Peer("kube-system", {"k8s-app": "kube-dns"}, {"dns": 53}),
    "internet": Peer("", {}, {"http": 80, "https": 443, "api": 6443}, "93.184.216.34"),
    "metadata": Peer("", {}, {"http": 80, "https": 443}, "169.254.169.254"),
}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", ()))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def network_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield each connection that the policies allow or deny contrary to REACHED."""
    policies = [manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in policies:
        yield "no policy denies what the others do not allow"
    peers = {
        pod.labels.get(COMPONENT, "?"): Peer("sclip", pod.labels, pod.ports) for pod in pods(manifests)
    } | OUTSIDE
    for (source, sender), (target, taker) in itertools.product(peers.items(), repeat=2):
        ports = taker.ports | {"other": 10002}
        free = [
            name for name, port in ports.items()
            if sender.may("egress", taker, port, policies) and taker.may("ingress", sender, port, policies)
        ]  # fmt: skip
        reached = "all" if len(free) == len(ports) else " ".join(sorted(free))
        wanted = REACHED.get(source, {}).get(target, "")
        if reached != wanted and not {source, target} <= OUTSIDE.keys():
            yield f"{source} reaches {target} at [{reached}], not at [{wanted}]"
