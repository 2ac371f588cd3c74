"""The model and the training step run where only torch and open_clip are installed."""

import subprocess
import sys
from pathlib import Path

from support.environments import installed_with, only
from support.paths import ROOT


def test_a_step_is_trained_and_saved_where_only_torch_and_open_clip_are_installed(tmp_path: Path) -> None:
    """All other packages are hidden, also those that only recent versions of torch and open_clip depend on."""
    allowed = installed_with("torch", "open_clip_torch", "safetensors", "numpy")
    allowed -= {"ray", "spacy", "lemminflect", "mlflow", "pydantic", "rich"}
    assert {"torch", "timm", "open_clip", "numpy", "safetensors"} <= allowed
    assert {"pyarrow", "hypothesis", "pytest"}.isdisjoint(allowed)
    program = f"""
{only(allowed)}
from importlib.util import find_spec
assert find_spec("ray") is None and find_spec("pyarrow") is None
import sclip.model, sclip.train.step, sclip.train.sharding, sclip.train.checkpoint, sclip.benchmark.step
import sclip.train.health, sclip.train.reports, sclip.train.prefetch
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
