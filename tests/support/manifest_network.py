"""Work out from network policies who connects to whom, which no linter does."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from support.kustomized import Manifest, pods

COMPONENT = "app.kubernetes.io/component"
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
"""Who may connect to whom, and at which ports of theirs. The metadata server of a cloud is reached by none."""


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod of a namespace, or an address outside of the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "sclip"
    address: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.namespace == "sclip" and not self.address

    def matches(self, allowed: Manifest) -> bool:
        """Tell whether an entry of `from` or `to` means this one."""
        if "ipBlock" in allowed:
            blocks = [allowed["ipBlock"]["cidr"], *allowed["ipBlock"].get("except", ())]
            inside = [
                self.address and ipaddress.ip_address(self.address) in ipaddress.ip_network(b) for b in blocks
            ]
            return bool(inside[0]) and not any(inside[1:])
        namespace = {"kubernetes.io/metadata.name": self.namespace}
        same = (
            selects(allowed["namespaceSelector"], namespace) if "namespaceSelector" in allowed else self.ours
        )
        return not self.address and same and selects(allowed.get("podSelector", {}), self.labels)


OUTSIDE = {
    "operator": Peer({COMPONENT: "kuberay-operator"}, "ray-system"),
    "prometheus": Peer(namespace="monitoring"),
    "stranger": Peer(namespace="default"),
    "dns": Peer({"k8s-app": "kube-dns"}, "kube-system", ports={"dns": 53}),
    "internet": Peer(address="93.184.216.34", ports={"http": 80, "https": 443, "api": 6443}),
    "metadata": Peer(address="169.254.169.254", ports={"http": 80, "https": 443}),
}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a label selector matches."""
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", ()))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def _allows(policies: list[Manifest], way: str, own: Peer, other: Peer, port: int) -> bool:
    if not own.ours:
        return True
    over = [
        p for p in policies if way.capitalize() in p["policyTypes"] and selects(p["podSelector"], own.labels)
    ]
    rules = [rule for policy in over for rule in policy.get(way, ())]
    ends = "from" if way == "ingress" else "to"
    return not over or any(
        (ends not in rule or any(other.matches(one) for one in rule[ends]))
        and ("ports" not in rule or port in [one["port"] for one in rule["ports"]])
        for rule in rules
    )


def network_problems(manifests: list[Manifest]) -> Iterator[str]:
    """Yield connections that the policies allow or refuse against the table above."""
    policies = [manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in policies:
        yield "no policy denies what the others do not allow"
    peers = OUTSIDE | {
        pod.labels.get(COMPONENT, "?"): Peer(pod.labels, ports=pod.ports) for pod in pods(manifests)
    }
    for source, sends in peers.items():
        for target, takes in peers.items():
            if not (sends.ours or takes.ours):
                continue
            ports = takes.ports | {"other": 10002}
            open_ = {
                name
                for name, port in ports.items()
                if _allows(policies, "egress", sends, takes, port)
                and _allows(policies, "ingress", takes, sends, port)
            }
            reached = "all" if open_ == ports.keys() else " ".join(sorted(open_))
            if reached != (wanted := REACHED.get(source, {}).get(target, "")):
                yield f"{source} reaches {target} at [{reached}], not at [{wanted}]"
