"""Who reaches whom: selectors that select something, ports that somebody opens, and nothing open beyond them."""

from __future__ import annotations

import re
from typing import Any

from support.kustomized import Manifest, Pod, pods
from support.manifest_references import walk

OPERATORS = {"In": lambda value, wanted: value in wanted}
ADDRESS = re.compile(r"(?:://|@)([a-z][a-z0-9-]*):(\d+)")
"""HOST:PORT of a service of the same namespace, in an argument, an environment or a configuration."""


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a label selector matches."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        OPERATORS[one["operator"]](labels.get(one["key"]), one["values"])
        for one in selector.get("matchExpressions", [])
    )


def open_ports(pod: Pod) -> dict[str, int]:
    """Return the ports of a pod's containers, by name."""
    found = (port for container in pod.spec["containers"] for port in container.get("ports", []))
    return {port["name"]: port["containerPort"] for port in found}


def selector_problems(manifests: list[Manifest]) -> list[str]:
    """Return workloads, services, budgets and policies whose selector finds nothing, or not their own pods."""
    every, problems = list(pods(manifests)), []
    for manifest in manifests:
        place, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            if not selects(spec["selector"], spec["template"]["metadata"]["labels"]):
                problems.append(f"{place}: does not select its own pods")
        elif manifest["kind"] == "Service":
            chosen = [pod for pod in every if selects({"matchLabels": spec["selector"]}, pod.labels)]
            if not chosen:
                problems.append(f"{place}: selects no pod")
            for port in spec["ports"]:
                for pod in chosen:
                    opened = open_ports(pod)
                    if port["targetPort"] not in opened or opened[port["targetPort"]] != port["port"]:
                        problems.append(
                            f"{place}: {pod.place} does not open {port['targetPort']} as {port['port']}"
                        )
        elif manifest["kind"] == "PodDisruptionBudget" and not any(
            selects(spec["selector"], pod.labels) for pod in every
        ):
            problems.append(f"{place}: selects no pod")
    return problems


def policy_problems(manifests: list[Manifest]) -> list[str]:
    """Return holes and dead ends of the network policies."""
    every, policies = list(pods(manifests)), [m for m in manifests if m["kind"] == "NetworkPolicy"]
    problems = []
    closed = [p for p in policies if p["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    if not closed:
        problems.append("no policy denies what the others do not allow")
    submitted = any(pod.short_lived for pod in every)
    for policy in (p for p in policies if p not in closed):
        place, spec = f"NetworkPolicy/{policy['metadata']['name']}", policy["spec"]
        own = [pod for pod in every if selects(spec["podSelector"], pod.labels)]
        if not own and (submitted or "submitter" not in str(spec["podSelector"])):
            problems.append(f"{place}: selects no pod")
        for rule in spec.get("ingress", []):
            if "from" not in rule:
                problems.append(f"{place}: open to everybody")
            problems += [f"{place}: nothing listens on {port}" for port in _closed_ports(rule, own)]
        for rule in spec.get("egress", []):
            if "to" not in rule or ("ports" not in rule and any("ipBlock" in peer for peer in rule["to"])):
                problems.append(f"{place}: leads everywhere")
            peers = [peer["podSelector"] for peer in rule.get("to", []) if set(peer) == {"podSelector"}]
            there = [pod for pod in every if any(selects(peer, pod.labels) for peer in peers)]
            if peers and not there:
                problems.append(f"{place}: allows the way to no pod")
            problems += [f"{place}: nothing there listens on {port}" for port in _closed_ports(rule, there)]
    named = [policy["spec"]["podSelector"] for policy in policies if policy["spec"]["podSelector"]]
    for pod in every:
        if not any(selects(selector, pod.labels) for selector in named):
            problems.append(f"{pod.place}: no policy lets it reach anything")
    return problems


def _closed_ports(rule: dict[str, Any], there: list[Pod]) -> list[int]:
    """Return ports of a rule that no one of these pods opens; of no pods, none."""
    opened = {number for pod in there for number in open_ports(pod).values()}
    return [port["port"] for port in rule.get("ports", []) if there and port["port"] not in opened]


def reaches(manifests: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    """Tell whether a pod may connect to another of its namespace: what one sends and what the other takes."""
    policies = [manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    ways = (("Egress", "egress", "to", source, target), ("Ingress", "ingress", "from", target, source))
    for kind, rules, peers, own, other in ways:
        over = [p for p in policies if kind in p["policyTypes"] and selects(p["podSelector"], own.labels)]
        if over and not any(
            any(
                set(peer) == {"podSelector"} and selects(peer["podSelector"], other.labels)
                for peer in rule[peers]
            )
            and port in [one["port"] for one in rule.get("ports", [{"port": port}])]
            for policy in over
            for rule in policy.get(rules, [])
        ):
            return False
    return True


def address_problems(manifests: list[Manifest]) -> list[str]:
    """Return addresses of services that the manifests do not have, or at another port."""
    services = {
        (manifest["metadata"]["name"], str(port["port"]))
        for manifest in manifests
        if manifest["kind"] == "Service"
        for port in manifest["spec"]["ports"]
    }
    problems = []
    for manifest in manifests:
        for path, key, value in walk(manifest):
            if isinstance(value, str) and not key.endswith(".py"):
                for name, port in ADDRESS.findall(value):
                    if (name, port) not in services:
                        problems.append(
                            f"{manifest['kind']}{path}.{key}: no service answers at {name}:{port}"
                        )
    return problems
