"""Imports point one way: each package takes from the ones before it in the data flow, and from no other."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import installed_with, only

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Rule:
    """What a module or package of ours may import, beside itself and the standard library."""

    ours: str = ""
    """Modules or names below `sclip`."""
    never: str = ""
    """Third-party packages, with everything below them; `*` for all."""


HEAVY = "torch torchvision open_clip timm ray mlflow"
STEP = Rule(
    "config model place train.blocks train.collectives train.ema train.manifest train.optimizer train.sharding",
    never="ray spacy mlflow pydantic yaml rich",
)
"""What a machine with only torch and open_clip can run."""

STREAM = "ray.train spacy open_clip timm mlflow pydantic yaml"

RULES = {
    "": Rule("models scorer", never=f"{HEAVY} spacy"),
    "config": Rule(never="*"),
    "seeding": Rule(never="*"),
    "masking": Rule(never="*"),
    "scratch": Rule(never="*"),
    "place": Rule(
        "data.remote data.storage.together scratch", never=f"{HEAVY} spacy pydantic yaml fsspec pyarrow"
    ),
    "config_loader": Rule("config masking", never=f"{HEAVY} spacy"),
    "scenegraph": Rule(never=f"{HEAVY} pydantic yaml"),
    "scenegraph.__main__": Rule("scenegraph report", never=f"{HEAVY} pydantic yaml"),
    "negatives": Rule("scenegraph seeding", never=f"{HEAVY} spacy pydantic yaml"),
    "negatives.__main__": Rule("scenegraph negatives report", never=f"{HEAVY} spacy pydantic yaml"),
    "report": Rule("scenegraph negatives seeding", never=f"{HEAVY} spacy pydantic yaml"),
    "benchmark.isolated": Rule("benchmark.table", never=f"{HEAVY} spacy pydantic yaml rich"),
    "benchmark.step": Rule(
        "benchmark.isolated benchmark.machine benchmark.rounds benchmark.step_cases benchmark.step_plan "
        "benchmark.step_rows benchmark.table",
        never=STEP.never,
    ),
    "benchmark.step_cases": Rule(
        "config model train.flops train.optimizer train.sharding train.step", never=STEP.never
    ),
    "benchmark.step_plan": Rule(
        "benchmark.isolated benchmark.step_cases benchmark.step_profile benchmark.step_rows", never=STEP.never
    ),
    "benchmark.step_profile": Rule(
        "benchmark.isolated benchmark.step_cases benchmark.step_rows benchmark.step_sizes", never=STEP.never
    ),
    "benchmark.step_rows": Rule(
        "benchmark.isolated benchmark.step_cases benchmark.step_sizes train.checkpoint train.flops",
        never=STEP.never,
    ),
    "benchmark.step_sizes": Rule("benchmark.machine benchmark.step_cases", never=STEP.never),
    "benchmark.stream": Rule(
        "benchmark.machine benchmark.rounds benchmark.stream_cases benchmark.stream_kills benchmark.stream_plan "
        "benchmark.stream_rows benchmark.stream_shards benchmark.table train.cluster",
        never=f"{STREAM} torch",
    ),
    "benchmark.stream_cases": Rule("benchmark.stream_shards config data scenegraph", never=f"{STREAM} torch"),
    "benchmark.stream_kills": Rule("audit.account benchmark.rounds benchmark.table", never=STREAM),
    "benchmark.stream_peers": Rule(
        "benchmark.stream_cases config data model.Tokenizer negatives seeding", never=STREAM
    ),
    "benchmark.stream_plan": Rule("benchmark.machine config data train.cluster", never=f"{STREAM} torch"),
    "benchmark.stream_rows": Rule(
        "benchmark.rounds benchmark.stream_cases benchmark.stream_peers benchmark.stream_plan "
        "benchmark.stream_stages benchmark.table data train.prefetch",
        never=f"{STREAM} torch",
    ),
    "benchmark.stream_shards": Rule(
        "benchmark.captions benchmark.rounds data", never=f"{HEAVY} spacy pydantic yaml"
    ),
    "benchmark.stream_stages": Rule(
        "benchmark.stream_cases data model.Tokenizer negatives scenegraph seeding", never=f"{STREAM} torch"
    ),
    "benchmark": Rule("scenegraph negatives", never=f"{HEAVY} pydantic yaml"),
    "model": Rule("config seeding", never="ray spacy lemminflect mlflow pydantic yaml"),
    "data": Rule(
        "config masking seeding scenegraph negatives model.Tokenizer model.tokenizer",
        never="ray spacy open_clip timm mlflow pydantic yaml",
    ),
    "data.annotate": Rule(
        "config data masking negatives scenegraph report", never=f"{HEAVY} spacy pydantic yaml"
    ),
    "data.annotated": Rule("data masking report", never=f"{HEAVY} spacy pydantic yaml"),
    "data.columns": Rule(never="*"),
    "data.exclusion": Rule("data.images", never=f"{HEAVY} spacy webdataset pydantic yaml"),
    "data.exclusion_list": Rule("data", never=f"{HEAVY} spacy pydantic yaml"),
    "data.identity": Rule("data masking", never=f"{HEAVY} spacy pydantic yaml"),
    "data.notes": Rule(never="*"),
    "data.position": Rule(never="*"),
    "data.schedule": Rule("seeding", never="*"),
    "data.reader": Rule("config data masking seeding", never=f"{HEAVY} spacy pydantic yaml"),
    "data.pool": Rule("config", never="ray.train spacy open_clip timm mlflow pydantic yaml"),
    "data.stream": Rule(
        "config masking seeding data", never="ray.train spacy open_clip timm mlflow pydantic yaml"
    ),
    "audit": Rule(
        "data.schedule data.storage masking place", never=f"{HEAVY} spacy webdataset pydantic yaml rich"
    ),
    "scenes": Rule("config seeding data.pack place", never=f"{HEAVY} spacy pydantic yaml"),
    "scorer": Rule("config data.images model scenegraph", never="ray spacy mlflow pydantic yaml"),
    "train": Rule(
        "config config_loader masking place seeding data model", never="spacy mlflow pydantic yaml"
    ),
    "train.blocks": STEP,
    "train.collectives": STEP,
    "train.optimizer": STEP,
    "train.sharding": STEP,
    "train.step": STEP,
    "train.checkpoint": STEP,
    "train.ema": STEP,
    "train.flops": STEP,
    "train.manifest": STEP,
    "train.health": Rule("config model place train.collectives train.step", never=STEP.never),
    "train.ledger": Rule("data.schedule place train.collectives", never=STEP.never),
    "train.meter": Rule(never=STEP.never),
    "train.stages": Rule("data.notes", never=STEP.never),
    "train.prefetch": Rule("config data.batches data.columns model train.step", never=STEP.never),
    "train.trainer": Rule(
        "config config_loader place seeding data model scenegraph.ParserError train tracking",
        never="spacy mlflow pydantic yaml",
    ),
    "evaluate": Rule(
        "config config_loader data.exclusion data.filesystem data.images data.shards masking model place scenegraph "
        "scorer seeding",
        never="ray.train ray.tune spacy mlflow pydantic yaml",
    ),
    "evaluate.result": Rule(never="*"),
    "evaluate.compare": Rule("evaluate.result", never=f"{HEAVY} spacy pydantic yaml"),
    "convert": Rule(
        "config config_loader model place scorer train.checkpoint train.manifest train.run_folder",
        never="ray spacy mlflow pydantic yaml",
    ),
    "models": Rule(
        "config convert masking model place registry scorer tracking train.run_folder",
        never="ray spacy mlflow pydantic yaml",
    ),
    "tracking": Rule("config config_loader masking place", never="torch ray spacy pydantic yaml"),
    "tracking.journal": Rule("place", never=f"{HEAVY} spacy pydantic yaml"),
    "registry": Rule(
        "config evaluate.result masking model.weights scorer signature tracking",
        never="ray spacy pydantic yaml",
    ),
    "registry.gates": Rule("config evaluate.result", never=f"{HEAVY} spacy pydantic yaml"),
    "signature": Rule("scorer", never="ray spacy pydantic yaml"),
    "pyfunc_model": Rule("data.images.ImageError scorer signature", never="ray spacy pydantic yaml"),
    "survey": Rule(
        "config data masking negatives recorded report scenegraph", never=f"{HEAVY} spacy pydantic yaml"
    ),
    "recorded": Rule("config config_loader place", never=f"{HEAVY} spacy pydantic yaml"),
    "inspection": Rule(
        "config data masking model.Tokenizer model.image_size place recorded report",
        never=f"{HEAVY} spacy pydantic yaml",
    ),
    "validate": Rule("config data masking report", never=f"{HEAVY} spacy pydantic yaml"),
    "stopping": Rule("", never=f"{HEAVY} spacy pydantic yaml rich"),
    "logs": Rule("masking", never="ray.train ray.tune torch spacy open_clip timm mlflow pydantic yaml"),
    "train.prometheus": Rule(
        "stopping train.health", never="ray.train ray.tune spacy mlflow pydantic yaml rich"
    ),
    "train.rendezvous": Rule(never="ray.tune spacy mlflow pydantic yaml rich"),
    "beside": Rule(
        "config train.run_folder", never="torch ray.train ray.tune spacy open_clip timm mlflow pydantic yaml"
    ),
    "scoring": Rule(
        "config evaluate model place scorer train.checkpoint train.run_folder",
        never="ray.train ray.tune spacy open_clip timm mlflow pydantic yaml",
    ),
    "finish": Rule(
        "config data.stream evaluate masking place registry report scenegraph scoring tracking train",
        never="ray mlflow spacy open_clip timm pydantic yaml",
    ),
    "plan": Rule(
        "config config_loader model place tracking.journal train.cluster train.flops train.node_types",
        never="ray spacy open_clip timm mlflow pydantic yaml",
    ),
    "doctor": Rule(
        "config data.filesystem data.shards masking scenegraph.ParserError scenegraph.parser_version tracking",
        never="ray.train ray.tune ray.data spacy open_clip timm mlflow pydantic yaml",
    ),
    "doctor.finding": Rule(never=f"{HEAVY} spacy pydantic yaml"),
    "pretrain": Rule(
        "beside config config_loader data evaluate finish logs masking model place plan registry scenegraph scenes "
        "scoring seeding stopping tracking train",
        never="ray mlflow spacy open_clip timm pydantic yaml",
    ),
    "sweep": Rule(
        "config config_loader evaluate finish masking pretrain report tracking train.cluster train.sizing",
        never="mlflow spacy open_clip timm pydantic yaml",
    ),
    "ablation": Rule("config config_loader masking sweep", never="mlflow spacy open_clip timm pydantic yaml"),
}
"""The rule of a module is the one of the longest name here that it lies in."""


def modules() -> dict[str, Path]:
    """Return the modules of the package by their dotted name below `sclip`, "" for the package itself."""
    found = {}
    for path in sorted((ROOT / "sclip").rglob("*.py")):
        parts = path.relative_to(ROOT / "sclip").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names that a source imports anywhere but for type checking: `module.name`."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                yield from walk(child)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child)

    return walk(ast.parse(source))


def within(name: str, places: str) -> bool:
    """Return whether a dotted name is one of the places or lies in one."""
    return any(name == place or name.startswith(f"{place}.") for place in places.split())


def rule_of(module: str) -> tuple[str, Rule]:
    """Return the name and the rule that hold for a module."""
    while module and module not in RULES:
        module = module.rpartition(".")[0]
    return module, RULES[module]


def breaches(module: str, source: str) -> list[str]:
    """Return a line for each import of a module that its rule does not allow."""
    place, rule = rule_of(module)
    package = place.partition(".")[0]
    own = package if place == package else place  # a module with a rule of its own is held to it
    lines = []
    for name in imports(source):
        top = name.partition(".")[0]
        if top == "sclip":
            allowed = within(name.removeprefix("sclip."), f"{rule.ours} {own}")
        elif top in sys.stdlib_module_names:
            allowed = True
        else:
            allowed = rule.never != "*" and not within(name, rule.never)
        if not allowed:
            lines.append(f"sclip.{module} may not import {name}")
    return lines


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    assert breaches(module, modules()[module].read_text()) == []


def test_every_module_has_a_rule_and_every_rule_a_module() -> None:
    assert [module for module in modules() if module and not rule_of(module)[0]] == []
    assert [place for place in RULES if place not in modules()] == []


def test_only_the_modules_of_tracking_and_registry_import_mlflow() -> None:
    users = {
        module
        for module, path in modules().items()
        if any(within(name, "mlflow") for name in imports(path.read_text()))
    }
    assert {name.partition(".")[0] for name in users} == {"tracking", "registry", "signature", "pyfunc_model"}


def test_no_two_packages_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in modules().items():
        # A command (`__main__`) stands above the packages that it shows: nothing imports it.
        package = module if module.endswith(".__main__") else module.partition(".")[0]
        names = [name.split(".") for name in imports(path.read_text()) if name.startswith("sclip.")]
        assert not any("__main__" in parts for parts in names)
        graph.setdefault(package, set()).update(parts[1] for parts in names if parts[1] != package)
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("scenegraph") < order.index("negatives") < order.index("data") < order.index("train")
    assert order.index("model") < order.index("evaluate") < order.index("pretrain")


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("config", "import yaml", ["yaml"]),
        ("config", "from sclip import seeding", ["sclip.seeding"]),
        ("negatives.meaning", "import torch.nn as nn", ["torch.nn"]),
        ("negatives.meaning", "def f():\n    from ray import data", ["ray.data"]),
        ("negatives", "try:\n    import ray\nexcept ImportError:\n    pass", ["ray"]),
        ("model.kee", "from sclip.data.columns import IMAGE", ["sclip.data.columns.IMAGE"]),
        ("model.kee", "from sclip.modelling import x", ["sclip.modelling.x"]),
        ("data.encode", "from sclip.model import Tokenizer, build_model", ["sclip.model.build_model"]),
        ("data.encode", "import ray.data", ["ray.data"]),
        ("train.step", "from sclip.train import loop", ["sclip.train.loop"]),
        ("train.loop", "import sclip.evaluate.runner", ["sclip.evaluate.runner"]),
        ("evaluate.runner", "from ray import train", ["ray.train"]),
        ("evaluate.runner", "import ray.data", []),
        ("model.kee", "if TYPE_CHECKING:\n    import ray\nelse:\n    import spacy", ["spacy"]),
        ("scenegraph.words", "import typing\nif typing.TYPE_CHECKING:\n    import torch", []),
    ],
)
def test_a_breach_is_seen_wherever_it_stands(module: str, source: str, found: list[str]) -> None:
    assert breaches(module, source) == [f"sclip.{module} may not import {name}" for name in found]


def test_a_step_is_trained_and_saved_where_only_torch_and_open_clip_are_installed(tmp_path: Path) -> None:
    """Whatever else this environment holds is not found; nor what comes along only with today's versions of theirs."""
    allowed = installed_with("torch", "open_clip_torch", "safetensors", "numpy")
    allowed -= {"ray", "spacy", "lemminflect", "mlflow", "pydantic", "rich"}
    assert {"torch", "timm", "open_clip", "numpy", "safetensors"} <= allowed
    assert {"pyarrow", "hypothesis", "pytest"}.isdisjoint(allowed)
    program = f"""
{only(allowed)}
from importlib.util import find_spec
assert find_spec("ray") is None and find_spec("pyarrow") is None
import sclip.model, sclip.train.step, sclip.train.sharding, sclip.train.checkpoint, sclip.benchmark.step
import sclip.train.health, sclip.train.meter, sclip.train.prefetch
import torch
from sclip.benchmark.step_cases import SMALL_NAME, Case, Ours, add_small_model

torch.set_num_threads(1)
add_small_model()
step = Ours(Case(SMALL_NAME, 4, "cpu", "fp32", parts=2, kee=True))
step.load(4)
before = step.model.kee.projection.weight.clone()
step()
sclip.train.checkpoint.save({str(tmp_path / "saved")!r}, step.model, step.optimizer, {{}})
print(torch.equal(before, step.model.kee.projection.weight))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    assert (tmp_path / "saved" / "manifest.json").is_file()
