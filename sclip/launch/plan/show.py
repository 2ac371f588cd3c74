"""Print a plan as a table with a few lines below it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from sclip.launch.plan.memory import GIB, Memory
from sclip.launch.plan.planning import NodeCount, Plan


def show(plan: Plan, console: Console) -> None:
    """Print the plan: a line for each stage, then the nodes, the time and the price."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "what", "on"):
        table.add_column(heading, overflow="fold")
    for heading in ("CPUs", "GPUs", "samples/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in plan.stages:
        rate = f"{stage.per_s:,.0f}" if stage.per_s else ""
        table.add_row(
            stage.name,
            stage.what,
            ", ".join(stage.on),
            f"{stage.cpus:g}" if stage.cpus else "",
            f"{stage.gpus:g}" if stage.gpus else "",
            rate,
        )
    console.print(table)
    for line in lines(plan):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def lines(plan: Plan) -> list[str]:
    """Return the lines below the table."""
    texts = []
    if plan.nodes:
        texts.append("nodes: " + ", ".join(map(_nodes, plan.nodes)))
    if plan.memory:
        texts += _step_lines(plan.memory, plan.step_s)
    texts.append(_time(plan))
    if plan.hourly is not None and plan.prices:
        unit = f" {plan.prices.currency}".rstrip()
        total = f", {plan.cost:,.2f}{unit} in all" if plan.cost is not None and not plan.bound_only else ""
        spot = any(
            name.kind.name in plan.prices.of and plan.prices.of[name.kind.name].spot for name in plan.nodes
        )
        texts.append(
            f"cost: {plan.hourly:,.2f}{unit} an hour with all of these nodes{total}"
            + (", spot prices as in the table" if spot else "")
        )
    return texts + list(plan.notes)


def _step_lines(memory: Memory, step_s: float | None) -> list[str]:
    """Return a line on the GPU's memory at the peak of a step, and one on its collectives (kinds from 0.01 GiB on)."""
    step = memory.step
    gpu_size = f" of {memory.gpu_bytes / GIB:g}" if memory.gpu_bytes else ""
    uses = {
        "parameters": step.parameters, "gradients": step.gradients, "moments": step.moments,
        "activations and loss": step.activations,
    }  # fmt: skip
    each = ", ".join(f"{use} {size / GIB:.1f}" for use, size in uses.items())
    on = f"each {memory.accelerator or 'GPU'}"
    lines = [f"memory: {step.peak / GIB:.1f}{gpu_size} GiB of {on} ({each})"]
    large = [collectives for collectives in step.collectives if collectives.size_bytes >= 0.01 * GIB]
    if large:
        kinds = ", ".join(f"{c.count:,} {c.kind} ({c.size_bytes / GIB:.2f} GiB in all)" for c in large)
        hidden = f"; compute hides them from {step.sent_bytes / step_s / 1e9:,.1f} GB/s on" if step_s else ""
        lines.append(f"collectives of a step: {kinds}{hidden}")
    return lines


def _nodes(nodes: NodeCount) -> str:
    requested, more = nodes.start - nodes.kind.alive, nodes.most - max(nodes.start, nodes.kind.alive)
    if nodes.most <= nodes.kind.alive:
        return f"{nodes.kind.alive} x {nodes.kind.name}"
    parts = [f"{nodes.kind.alive} there"] if nodes.kind.alive else []
    parts += [f"{requested} asked for"] if requested > 0 else []
    parts += [f"{more} more for encoders"] if more > 0 else []
    return f"{nodes.kind.name}: {' + '.join(parts)}"


def _time(plan: Plan) -> str:
    epochs = plan.config.train.epochs
    samples = f"{plan.samples:,} samples in {epochs} epoch{'s' if epochs > 1 else ''}"
    if not (plan.limit and plan.per_s and plan.hours is not None):
        return f"{samples}; no rate is known before a first run; or set --rates worker=N,encoder=N"
    how = f"{plan.limit.name} are the limit ({plan.limit.source})"
    if plan.bound_only:
        how += "; the rate of workers on these devices is unknown before a first run; or set --rates worker=N"
        return f"{samples}: at most {plan.per_s:,.0f} a second, {_duration(plan.hours)} at least; {how}"
    return f"{samples}: about {plan.per_s:,.0f} a second, {_duration(plan.hours)}; {how}"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
