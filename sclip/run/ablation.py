"""An ablation file in, its rows trained over several seeds and one table of them, beside published figures, out.

    config: scenes                      what all rows share, a name in jobs/configs or a file
    set: {train.num_workers: 1}         what all rows change in it (may be left out)
    seeds: [0, 1, 2]
    scores: {relation/accuracy: relation, attribute/accuracy: attribute}       what the table shows, and its heading
    published: Structure-CLIP, AAAI 2024, ...       where figures that the rows write out come from
    reference: clip                     the row that the others are tested against (may be left out)
    rows:
      clip: {label: "CLIP, fine-tuned", set: {loss.negatives: none}, published: {relation/accuracy: 0.6}}
      negclip: {label: NegCLIP, config: negclip, published: [negclip]}      rows of sclip/evaluate/published.yaml

A row may name its own `config`; the file's `set` and the command line apply to it too. Where the scores are
of other data than the published ones, `published_as: {relation/accuracy: vg-relation/macro}` says which
figure stands beside which score.

Each row and seed is an ordinary run; `sclip.run.sweep` runs them and goes on where it was stopped. With `start: ROW`
the other rows are tuned from that row's run of their seed (`sclip.run.forgetting`), and `blend: ROW` in a row, in place
of `set`, is a blend of the start with that row.
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
    """One line of the table."""

    label: str
    set: dict[str, Any] = field(default_factory=dict)
    """What it changes, by dotted key."""
    config: str = ""
    """Config that it takes in place of the file's, a name or a file; empty: the file's."""
    published: dict[str, float | str] = field(default_factory=dict)
    """Published figures, by score; a text if no exact one is published, or to add a note. A file may name
    rows of `sclip.evaluate.published` instead."""
    blend: str = ""
    """Row that is blended with the start; nothing is trained then."""


@dataclass(frozen=True)
class Ablation:
    """What an ablation file says."""

    config: str
    seeds: list[int]
    scores: dict[str, str]
    rows: dict[str, AblationRow]
    published: str = ""
    published_as: dict[str, str] = field(default_factory=dict)
    """Published score to show beside each score, if its name differs."""
    set: dict[str, Any] = field(default_factory=dict)
    """What is set for all rows, by dotted key, before what the command line sets."""
    start: str = ""
    """Row that the others are tuned from; empty: each is trained by itself."""
    reference: str = ""
    """Row that the others are tested against, seed by seed; empty: none is."""

    @property
    def plain(self) -> str:
        """The row that the gains of all are shares of: the first that is tuned."""
        return next(row for row, what in self.rows.items() if row != self.start and not what.blend)


@dataclass(frozen=True)
class Done:
    """An ablation that was run."""

    ablation: Ablation
    cells: dict[str, dict[str, Cell]]
    """By row and score."""
    trials: list[Trial]
    pages: list[Path]


def read(path: Path) -> Ablation:
    """Return what the file says. Raises ConfigError naming the file and what is wrong in it."""
    tree = read_yaml(path)
    try:
        rows = {str(name): AblationRow(**row) for name, row in tree.pop("rows").items()}
        found = _with_published(path, Ablation(rows=rows, **tree))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not an ablation: {error}; it has config, seeds, scores and rows"
        ) from error
    if not found.rows or not found.seeds or not found.scores:
        raise ConfigError(f"{path}: needs a row, a seed and a score at least")
    trained = [row for row, what in found.rows.items() if not what.blend]
    if found.reference not in ("", *found.rows):
        raise ConfigError(f"{path}: reference: {found.reference}: no row; they are {', '.join(found.rows)}")
    for key, row in [
        ("start", found.start),
        *((f"{row}: blend", of.blend) for row, of in found.rows.items()),
    ]:
        if row and (row not in trained or (key != "start" and row == found.start)):
            raise ConfigError(f"{path}: {key}: {row}: no row that is trained; those are {', '.join(trained)}")
    for row, what in found.rows.items():
        if what.blend and what.set:
            raise ConfigError(f"{path}: {row}: a blend is of runs as they are; leave out its set")
    if (found.start and len(trained) < 2) or (not found.start and len(trained) < len(found.rows)):
        raise ConfigError(f"{path}: start and a row that is tuned from it go together, and blends with them")
    return found


def _with_published(path: Path, ablation: Ablation) -> Ablation:
    """Return the ablation with the figures and the sources of the published rows that its rows name."""
    of_score = {score: ablation.published_as.get(score, score) for score in ablation.scores}
    known, named, rows = published.rows(), list[published.PublishedRow](), dict(ablation.rows)
    for row, what in ablation.rows.items():
        names: Any = what.published
        if isinstance(names, dict):
            continue
        figures: dict[str, float | str] = {}
        for name in [names] if isinstance(names, str) else names:
            if name not in known:
                raise ConfigError(
                    f"{path}: {row}: published: {name}: no such row; they are {', '.join(known)}"
                )
            named.append(known[name])
            for score, other in of_score.items():
                if other in known[name].scores:
                    figures[score] = f"{known[name].scores[other]:.3f} {known[name].note}".rstrip()
        rows[row] = dataclasses.replace(what, published=figures)
    sources = published.sources(named, of_score.values()).items()
    texts = [ablation.published, *(f"{source}: {of}" for source, of in sources)]
    return dataclasses.replace(ablation, rows=rows, published="; ".join(filter(None, texts)))


def narrowed(ablation: Ablation, rows: Sequence[str], seeds: Sequence[int]) -> Ablation:
    """Return the ablation with these rows and seeds only, where any are given. Raises ConfigError for no such row."""
    for row in rows:
        if row not in ablation.rows:
            raise ConfigError(f"row {row!r}: there is none; the rows are {', '.join(ablation.rows)}")
    wanted = {*rows, *(ablation.rows[row].blend for row in rows)}
    if ablation.start and rows:
        wanted |= {ablation.start, ablation.plain}
    kept = {row: what for row, what in ablation.rows.items() if not rows or row in wanted}
    return dataclasses.replace(ablation, rows=kept, seeds=list(seeds) or ablation.seeds)


def shared_config(ablation: Ablation, overrides: Sequence[str] = ()) -> Config:
    """Return what all rows share; the overrides have the last word. Raises ConfigError."""
    return load(
        [*(f"{key}={json.dumps(value)}" for key, value in ablation.set.items()), *overrides], ablation.config
    )


def with_configs(ablation: Ablation, overrides: Sequence[str] = ()) -> Ablation:
    """Return the ablation with what a row's own config has other than the shared one written into the row's `set`.

    Raises ConfigError naming the row whose config cannot be read.
    """
    shared = flatten(to_tree(shared_config(ablation, overrides)))
    rows = dict(ablation.rows)
    for row, what in ablation.rows.items():
        if what.config:
            try:
                own = shared_config(dataclasses.replace(ablation, config=what.config), overrides)
            except ConfigError as error:
                raise ConfigError(f"row {row!r}: {error}") from error
            other = {key: value for key, value in flatten(to_tree(own)).items() if value != shared[key]}
            rows[row] = dataclasses.replace(what, set=other | what.set)
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
    """Train every row over its seeds, and write the tables and the page into STORAGE/sweeps/NAME.

    Raises ConfigError for what is found before anything starts, and what a sweep raises.
    """
    path = Path(name_or_file)
    path = path if path.is_file() else CONFIGS / "ablation" / f"{name_or_file}.yaml"
    asked = with_configs(narrowed(read(path), rows, seeds), overrides)
    name = name or f"ablation-{path.stem}"
    config = shared_config(asked, overrides)
    swept, trials = sweep_of(asked, name, config, at_once), list[Trial]()
    if asked.start:
        config = changed(config, {"run.storage": sweep.storage_of(config)})
        forgetting.write_suites(asked, name, config)
        alone = dataclasses.replace(asked, rows={asked.start: asked.rows[asked.start]})
        starts = sweep.run(sweep_of(alone, name, config, at_once), console)
        # The other rows of a seed whose start failed would have nothing to begin with.
        trials = [start for start in starts if start.error]
        failed = {start.name for start in trials}
        begun = [seed for seed in asked.seeds if f"{name}-{asked.start}-seed-{seed}" not in failed]
        swept = sweep_of(dataclasses.replace(asked, seeds=begun), name, config, at_once)
    if swept.space[POINT]["grid_search"]:
        trials += sweep.run(swept, console)
    if asked.start:
        trials = forgetting.add_shares(
            asked, name, forgetting.add_blends(asked, name, config, trials, console)
        )
    cells = table(asked, trials, name)
    storage = Path(config.run.storage).expanduser().absolute()
    folder = storage / "sweeps" / name
    written = write(asked, cells, folder)
    trained = [row for row, what in asked.rows.items() if not what.blend]
    of_first = [t for t in trials if t.name in {f"{name}-{row}-seed-{asked.seeds[0]}" for row in trained}]
    pages = sweep.pages(of_first, storage, folder, f"{name}, seed {asked.seeds[0]}")
    labels = {row: what.label for row, what in asked.rows.items()}
    layout = report.Layout(
        f"{name}, seeds {', '.join(map(str, asked.seeds))}",
        labels,
        asked.scores,
        len(asked.seeds),
        asked.reference,
        asked.start,
        asked.published,
    )
    drawn = forgetting.forgetting(asked, name, config, trials) if asked.start else None
    page = report.write(layout, cells, folder, drawn, pages[0].name if pages else "")
    return Done(asked, cells, trials, [page, written, *pages])


def sweep_of(ablation: Ablation, name: str, config: Config, at_once: int = 0) -> Sweep:
    """Return the sweep of every row and seed. Raises ConfigError naming the row that cannot be run."""
    points = []
    for seed in ablation.seeds:  # a whole table of one seed first
        for row, what in ablation.rows.items():
            if what.blend:
                continue
            label, values = f"{row}-seed-{seed}", what.set | {"run.seed": seed}
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
    """Return by row and score what its runs reached."""
    by_name = {trial.name: trial for trial in trials}

    def reached(row: str, score: str) -> list[float | None]:
        # A blend of runs that failed is not there.
        runs = (by_name.get(f"{name}-{row}-seed-{seed}") for seed in ablation.seeds)
        return [run.scores.get(score) if run else None for run in runs]

    found: dict[str, dict[str, Cell]] = {}
    for row, what in ablation.rows.items():
        found[row] = {}
        for score in ablation.scores:
            values, tested = reached(row, score), None
            if row != ablation.reference in ablation.rows:
                tested = p_value(values, reached(ablation.reference, score))
            there = [value for value in values if value is not None]
            found[row][score] = Cell(there, _figure(what.published.get(score)), tested)
    return found


def _figure(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def show(ablation: Ablation, cells: Mapping[str, Mapping[str, Cell]], console: Console) -> None:
    """Print the table."""
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in _headings(ablation):
        shown.add_column(heading, no_wrap=not heading)
    for line in _lines(ablation, cells):
        shown.add_row(*line)
    console.print(shown)
    if ablation.published:
        console.print(f"published: {ablation.published}", soft_wrap=True, highlight=False, markup=False)


def write(ablation: Ablation, cells: Mapping[str, Mapping[str, Cell]], folder: Path) -> Path:
    """Write ablation.json and ablation.md into the folder; return the latter's path."""
    record = {
        row: {score: dataclasses.asdict(cell) for score, cell in of.items()} for row, of in cells.items()
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
            *(text for cell in of.values() for text in (cell.text, cell.published)[:width]),
        ]
        for row, of in cells.items()
    ]


def _width(ablation: Ablation) -> int:
    """Return the columns of a score: one where nothing is published."""
    return 2 if any(row.published for row in ablation.rows.values()) else 1
