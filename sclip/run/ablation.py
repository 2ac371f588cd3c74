"""Train the rows of an ablation file over several seeds; write one table of their scores beside published figures.

    config: scenes                      config that all rows share: a name in jobs/configs or a file
    set: {train.num_workers: 1}         settings of every row, on top of the config (optional)
    seeds: [0, 1, 2]
    scores: {relation/accuracy: relation, attribute/accuracy: attribute}       scores in the table, with headings
    published: Structure-CLIP, AAAI 2024, ...       source of the figures written in the rows
    reference: clip                     row that the others are tested against (optional)
    rows:
      clip: {label: "CLIP, fine-tuned", set: {loss.negatives: none}, published: {relation/accuracy: 0.6}}
      negclip: {label: NegCLIP, config: negclip, published: [negclip]}      a row of sclip/evaluate/published.yaml

A row's own `config` replaces the file's; the file's `set` and the command line still apply. A row's `published` holds
figures, or names of rows in published.yaml. `published_as: {relation/accuracy: vg-relation/macro}` names the published
score to show beside a score of another name.

Each row and seed is an ordinary run. `sclip.run.sweep` runs them, and resumes them after a stop. With `start: A`, row A
is the start row: the runs of all other trained rows begin with the weights of row A's run of the same seed
(`sclip.run.forgetting`). A row with `blend: B` is not trained: its model is a blend of the models of rows A and B.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from rich import box
from rich.console import Console
from rich.table import Table

from sclip.config import Config, ConfigError
from sclip.config.loader import CONFIGS, changed, flatten, load, read_yaml, to_tree
from sclip.evaluate import published
from sclip.evaluate.seeds import Cell, p_value
from sclip.report import ablation as report
from sclip.run import forgetting, sweep
from sclip.run.sweep import POINT, Sweep, Trial
from sclip.storage.masking import mask_tree

__all__ = [
    "Ablation",
    "AblationRow",
    "Done",
    "narrowed",
    "read",
    "run",
    "shared_config",
    "show",
    "sweep_of",
    "table",
    "with_configs",
    "write",
]


@dataclass(frozen=True)
class AblationRow:
    """One row of the table."""

    label: str
    set: dict[str, Any] = field(default_factory=dict)
    """Settings that the row changes, by dotted key."""
    config: str = ""
    """Config of this row, a name or a file; empty means the config of the ablation file."""
    published: dict[str, float | str] = field(default_factory=dict)
    """Published figure of each score: a number, or a text if the figure is inexact or has a note."""
    blend: str = ""
    """Row whose weights are blended with the start row's to make this row; empty means that this row is trained."""


@dataclass(frozen=True)
class Ablation:
    """Content of an ablation file."""

    config: str
    seeds: list[int]
    scores: dict[str, str]
    rows: dict[str, AblationRow]
    published: str = ""
    published_as: dict[str, str] = field(default_factory=dict)
    """Score of this ablation -> name of the published score to show beside it, if the names differ."""
    set: dict[str, Any] = field(default_factory=dict)
    """Settings of every row, by dotted key. The command line overrides them, and a row's own `set` overrides both."""
    start: str = ""
    """Row whose weights the training of the other rows begins with; empty means that the rows are independent."""
    reference: str = ""
    """Row that the others are tested against, seed by seed; empty means no test."""

    @property
    def plain(self) -> str:
        """The first trained row besides the start row. The gain of each row is shown as a share of this row's gain."""
        return next(row for row, spec in self.rows.items() if row != self.start and not spec.blend)


@dataclass(frozen=True)
class Done:
    """Result of an ablation."""

    ablation: Ablation
    cells: dict[str, dict[str, Cell]]
    """Cells of the table, by row and then by score."""
    trials: list[Trial]
    pages: list[Path]


def read(path: Path) -> Ablation:
    """Read an ablation file. Raises ConfigError that names the file and its fault."""
    tree = read_yaml(path)
    try:
        rows = {str(name): AblationRow(**row) for name, row in tree.pop("rows").items()}
        ablation = _with_published(path, Ablation(rows=rows, **tree))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not an ablation: {error}; it needs config, seeds, scores and rows"
        ) from error
    if not ablation.rows or not ablation.seeds or not ablation.scores:
        raise ConfigError(f"{path}: needs at least one row, one seed and one score")
    trained = [row for row, spec in ablation.rows.items() if not spec.blend]
    if ablation.reference not in ("", *ablation.rows):
        raise ConfigError(
            f"{path}: reference: {ablation.reference}: no such row; the rows are {', '.join(ablation.rows)}"
        )
    for key, row in [
        ("start", ablation.start),
        *((f"{row}: blend", spec.blend) for row, spec in ablation.rows.items()),
    ]:
        if row and (row not in trained or (key != "start" and row == ablation.start)):
            raise ConfigError(
                f"{path}: {key}: {row}: not a trained row; trained rows are {', '.join(trained)}"
            )
    for row, spec in ablation.rows.items():
        if spec.blend and spec.set:
            raise ConfigError(f"{path}: {row}: a blend takes runs as they are; leave out its set")
    if (ablation.start and len(trained) < 2) or (not ablation.start and len(trained) < len(ablation.rows)):
        raise ConfigError(f"{path}: start needs a row that is tuned from it, and blends need start")
    return ablation


def _with_published(path: Path, ablation: Ablation) -> Ablation:
    """Replace the names of published.yaml's rows in `AblationRow.published` by figures; add the figures' sources."""
    published_names = {score: ablation.published_as.get(score, score) for score in ablation.scores}
    known, used, rows = published.rows(), list[published.PublishedRow](), dict(ablation.rows)
    for row, spec in ablation.rows.items():
        names: Any = spec.published
        if isinstance(names, dict):
            continue
        figures: dict[str, float | str] = {}
        for name in [names] if isinstance(names, str) else names:
            if name not in known:
                raise ConfigError(
                    f"{path}: {row}: published: {name}: no such row; the rows are {', '.join(known)}"
                )
            used.append(known[name])
            for score, published_name in published_names.items():
                if published_name in known[name].scores:
                    figures[score] = f"{known[name].scores[published_name]:.3f} {known[name].note}".rstrip()
        rows[row] = dataclasses.replace(spec, published=figures)
    sources = published.sources(used, published_names.values()).items()
    texts = [ablation.published, *(f"{source}: {figure_text}" for source, figure_text in sources)]
    return dataclasses.replace(ablation, rows=rows, published="; ".join(filter(None, texts)))


def narrowed(ablation: Ablation, rows: Sequence[str], seeds: Sequence[int]) -> Ablation:
    """Keep only these rows and seeds; empty means all. Raises ConfigError if a row does not exist.

    Also keeps the rows that the kept rows need: the start row, the plain row, and the row that a blend names.
    """
    for row in rows:
        if row not in ablation.rows:
            raise ConfigError(f"row {row!r}: no such row; the rows are {', '.join(ablation.rows)}")
    wanted = {*rows, *(ablation.rows[row].blend for row in rows)}
    if ablation.start and rows:
        wanted |= {ablation.start, ablation.plain}
    kept = {row: spec for row, spec in ablation.rows.items() if not rows or row in wanted}
    return dataclasses.replace(ablation, rows=kept, seeds=list(seeds) or ablation.seeds)


def shared_config(ablation: Ablation, overrides: Sequence[str] = ()) -> Config:
    """Return the config that all rows share, with the overrides on top. Raises ConfigError for a wrong key or value."""
    return load(
        [*(f"{key}={json.dumps(value)}" for key, value in ablation.set.items()), *overrides], ablation.config
    )


def with_configs(ablation: Ablation, overrides: Sequence[str] = ()) -> Ablation:
    """Add what each row's own config changes to the row's `set`. Raises ConfigError that names the row at fault."""
    shared = flatten(to_tree(shared_config(ablation, overrides)))
    rows = dict(ablation.rows)
    for row, spec in ablation.rows.items():
        if spec.config:
            try:
                own = shared_config(dataclasses.replace(ablation, config=spec.config), overrides)
            except ConfigError as error:
                raise ConfigError(f"row {row!r}: {error}") from error
            differences = {key: value for key, value in flatten(to_tree(own)).items() if value != shared[key]}
            rows[row] = dataclasses.replace(spec, set=differences | spec.set)
    return dataclasses.replace(ablation, rows=rows)


def run(
    name_or_file: str,
    overrides: Sequence[str],
    console: Console,
    name: str = "",
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    at_once: int = 0,
) -> Done:
    """Train every row over its seeds; write ablation.json, ablation.md and the pages into STORAGE/sweeps/NAME.

    If `name` is empty, NAME is `ablation-FILE`. `rows` and `seeds` are as in `narrowed`. At most `at_once` runs train
    at a time; 0 means as many as the cluster holds. Raises ConfigError for errors found before anything starts, and the
    errors of `sweep.run`.
    """
    path = Path(name_or_file)
    path = path if path.is_file() else CONFIGS / "ablation" / f"{name_or_file}.yaml"
    ablation = with_configs(narrowed(read(path), rows, seeds), overrides)
    name = name or f"ablation-{path.stem}"
    config = shared_config(ablation, overrides)
    row_sweep, trials = sweep_of(ablation, name, config, at_once), list[Trial]()
    if ablation.start:
        config = changed(config, {"run.storage": sweep.storage_of(config)})
        forgetting.write_suites(ablation, name, config)
        start_only = dataclasses.replace(ablation, rows={ablation.start: ablation.rows[ablation.start]})
        starts = sweep.run(sweep_of(start_only, name, config, at_once), console)
        # If a seed's start run failed, the other rows of this seed have no weights to begin with.
        trials = [start for start in starts if start.error]
        failed = {start.name for start in trials}
        started = [seed for seed in ablation.seeds if f"{name}-{ablation.start}-seed-{seed}" not in failed]
        row_sweep = sweep_of(dataclasses.replace(ablation, seeds=started), name, config, at_once)
    if row_sweep.space[POINT]["grid_search"]:
        trials += sweep.run(row_sweep, console)
    if ablation.start:
        trials = forgetting.add_shares(
            ablation, name, forgetting.add_blends(ablation, name, config, trials, console)
        )
    cells = table(ablation, trials, name)
    storage = Path(config.run.storage).expanduser().absolute()
    folder = storage / "sweeps" / name
    table_file = write(ablation, cells, folder)
    trained = [row for row, spec in ablation.rows.items() if not spec.blend]
    compared = [t for t in trials if t.name in {f"{name}-{row}-seed-{ablation.seeds[0]}" for row in trained}]
    pages = sweep.pages(compared, storage, folder, f"{name}, seed {ablation.seeds[0]}")
    labels = {row: spec.label for row, spec in ablation.rows.items()}
    layout = report.Layout(
        f"{name}, seeds {', '.join(map(str, ablation.seeds))}",
        labels,
        ablation.scores,
        len(ablation.seeds),
        ablation.reference,
        ablation.start,
        ablation.published,
    )
    plot = forgetting.forgetting(ablation, name, config, trials) if ablation.start else None
    page = report.write(layout, cells, folder, plot, pages[0].name if pages else "")
    return Done(ablation, cells, trials, [page, table_file, *pages])


def sweep_of(ablation: Ablation, name: str, config: Config, at_once: int = 0) -> Sweep:
    """Return the sweep over all trained rows and seeds. Raises ConfigError that names a row with invalid settings."""
    points = []
    for seed in ablation.seeds:  # all rows of a seed run before the next seed
        for row, spec in ablation.rows.items():
            if spec.blend:
                continue
            label, values = f"{row}-seed-{seed}", spec.set | {"run.seed": seed}
            if ablation.start:
                values["evaluate.suite"] = str(forgetting.suite(config, name, seed, "report"))
            if ablation.start not in ("", row):
                values["run.init_from"] = f"{name}-{ablation.start}-seed-{seed}"
            try:
                changed(config, values | {"run.name": f"{name}-{label}"})
            except ConfigError as error:
                raise ConfigError(f"row {row!r}: {error}") from error
            points.append({"name": label, "set": values})
    return Sweep(name, config, {POINT: tune.grid_search(points)}, at_once=at_once)


def table(ablation: Ablation, trials: Sequence[Trial], name: str) -> dict[str, dict[str, Cell]]:
    """Return the table's cells by row and then by score; `name` is the sweep's name."""
    trials_by_name = {trial.name: trial for trial in trials}

    def reached(row: str, score: str) -> list[float | None]:
        # If a run failed, its blends are missing too.
        runs = (trials_by_name.get(f"{name}-{row}-seed-{seed}") for seed in ablation.seeds)
        return [run.scores.get(score) if run else None for run in runs]

    cells: dict[str, dict[str, Cell]] = {}
    for row, spec in ablation.rows.items():
        cells[row] = {}
        for score in ablation.scores:
            values, p = reached(row, score), None
            if row != ablation.reference in ablation.rows:
                p = p_value(values, reached(ablation.reference, score))
            present = [value for value in values if value is not None]
            cells[row][score] = Cell(present, _figure(spec.published.get(score)), p)
    return cells


_LOG_COLUMNS = 1000
"""Maximum width of a table that is not printed to a terminal."""


def _figure(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def show(ablation: Ablation, cells: Mapping[str, Mapping[str, Cell]], console: Console) -> None:
    """Print the table."""
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in _headings(ablation):
        shown.add_column(heading, no_wrap=not heading)
    for line in _lines(ablation, cells):
        shown.add_row(*line)
    if not console.is_terminal:  # a log takes lines of any length; rich would cut figures to 80 columns
        shown.width = console.measure(shown, options=console.options.update_width(_LOG_COLUMNS)).maximum
    console.print(shown, crop=False)
    if ablation.published:
        console.print(f"published: {ablation.published}", soft_wrap=True, highlight=False, markup=False)


def write(ablation: Ablation, cells: Mapping[str, Mapping[str, Cell]], folder: Path) -> Path:
    """Write ablation.json and ablation.md into the folder; return the path of ablation.md."""
    record = {
        row: {score: dataclasses.asdict(cell) for score, cell in row_cells.items()}
        for row, row_cells in cells.items()
    }
    (folder / "ablation.json").write_text(
        json.dumps({"ablation": mask_tree(dataclasses.asdict(ablation)), "rows": record}, indent=1)
    )
    headings = _headings(ablation)
    lines = [headings, ["---"] * len(headings), *_lines(ablation, cells)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page = folder / "ablation.md"
    page.write_text(
        text + (f"\nPublished: {ablation.published}\n" if ablation.published else ""), encoding="utf-8"
    )
    return page


def _headings(ablation: Ablation) -> list[str]:
    return [
        "",
        *(h for heading in ablation.scores.values() for h in (heading, "published")[: _width(ablation)]),
    ]


def _lines(ablation: Ablation, cells: Mapping[str, Mapping[str, Cell]]) -> list[list[str]]:
    width = _width(ablation)
    return [
        [
            ablation.rows[row].label,
            *(text for cell in row_cells.values() for text in (cell.text, cell.published)[:width]),
        ]
        for row, row_cells in cells.items()
    ]


def _width(ablation: Ablation) -> int:
    return 2 if any(row.published for row in ablation.rows.values()) else 1
