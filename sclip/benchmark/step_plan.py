"""List the rows of the step benchmark for a device, the most valuable first, because time may run out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sclip.benchmark import step_rows, step_traffic
from sclip.benchmark.isolated import Figures, Row
from sclip.benchmark.step_cases import Case
from sclip.benchmark.step_profile import profiled, profiled_words

__all__ = ["rows_of"]

TRAIN_ONE_EPOCH = "open_clip_train's train_one_epoch"
LIMIT_S, LIMIT_COMPILE_S = {"cpu": 900.0, "cuda": 75.0}, {"cpu": 900.0, "cuda": 150.0}
"""Maximum seconds for one row, by device; the first compiled step takes a minute or more."""
PARTS = 8
SWITCHES: list[dict[str, Any]] = [
    {"compile": True},
    {"attention": "plain"},
    {"parts": PARTS},
    {"sharding": "fsdp"},
    {"checkpointing": "selective"},
    {"checkpointing": "block"},
    {"sharding": "ddp"},
    {"precision": "fp32"},
    {"precision": "bf16"},
]
"""Changes to the plain step (see `step_rows`); each is measured in its own row."""


def rows_of(
    case: Case, models: dict[str, tuple[int, str]], rounds: int, trace_folder: Path | None
) -> list[Row]:
    """Return the rows: some measure `case`, others measure each model of `models` with the settings of `case`.

    `models` maps a name to (batch size, target MFU as text). Each is measured plain and with each of `SWITCHES`. With a
    `trace_folder`, a step of `case` is also profiled.
    """
    limit_s = (LIMIT_COMPILE_S if case.compile else LIMIT_S)[case.device]
    row = partial(Row, rounds=rounds, limit_s=limit_s)
    with_kee = replace(case, kee=True)
    plain = {model: replace(case, model=model, rows=rows) for model, (rows, _) in models.items()}
    rows = [
        row("product of large matrices", "data sheet", "", step_rows.matmul, step_rows.matmul_words, case),
        *(
            row(
                _name(plain[model]), "peak of the device" if wanted else "", wanted,
                step_rows.speed, step_rows.speed_words, plain[model],
            )
            for model, (_, wanted) in models.items()
        ),
        row(
            "step, 77 tokens", TRAIN_ONE_EPOCH, "1.0 x, 1.15 x", step_rows.faster, step_rows.faster_words,
            replace(case, full=True),
        ),
        row("step, COCO's lengths", TRAIN_ONE_EPOCH, "", step_rows.faster, step_rows.faster_words, case),
        row(
            "one negative and KEE", "arithmetic of the operations", "within 1.08, 1.03", step_rows.arithmetic,
            step_rows.arithmetic_words, with_kee,
        ),
        row(
            "distillation", "arithmetic of the operations", "within 1.05", step_rows.arithmetic,
            step_rows.arithmetic_words, replace(case, distil=True),
        ),
        row(
            "checkpoint, training stands still", "synchronous DCP", "a tenth, a fiftieth", step_rows.stall,
            step_rows.stall_words, with_kee, limit_s=2 * limit_s,
        ),
        row(
            f"checkpoint of ViT-B-32 planned by each of {step_rows.RANKS} ranks", "", "2 s", step_rows.planning,
            step_rows.planning_words, replace(with_kee, model="ViT-B-32", device="cpu", sharding="fsdp"),
        ),
        row(
            "traffic of a block, lean attention", "plain attention", "80 units", step_traffic.traffic,
            step_traffic.traffic_words, case,
        ),
    ]  # fmt: skip
    if trace_folder is not None:
        measure = partial(profiled, folder=trace_folder)
        rows.append(
            row("profile of a step with negatives and KEE", "", "", measure, profiled_words, with_kee)
        )
    for change in SWITCHES:
        for plain_case in plain.values():
            switched = replace(plain_case, **change)
            if switched == plain_case:
                continue
            wanted = "memory a third, a quarter" if "parts" in change else ""
            rows.append(
                row(
                    _name(switched), "plain: the step without", wanted,
                    step_rows.speed, step_rows.speed_words, switched,
                    limit_s=(LIMIT_COMPILE_S if switched.compile else LIMIT_S)[case.device],
                    compared_with=_name(plain_case), adapt=_as_large,
                )
            )  # fmt: skip
    return rows


def _as_large(case: Case, plain: Figures) -> Case:
    return replace(case, rows=int(plain["rows"][0]), sized_by_memory=False)


def _name(case: Case) -> str:
    words = [case.model, case.precision]
    words += ["compile"] if case.compile else []
    words += [f"attention={case.attention}"] if case.attention != "lean" else []
    words += [f"checkpointing={case.checkpointing}"] if case.checkpointing != "none" else []
    words += [f"sharding={case.sharding}"] if case.sharding != "none" else []
    words += [f"in {case.parts} parts"] if case.parts > 1 else []
    return ", ".join(words)
