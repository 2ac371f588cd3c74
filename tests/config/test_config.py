"""The configuration: every key explained, every mistake one line that says what to write."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sclip.config import Config, ConfigError, DataConfig, TrainConfig
from sclip.config.loader import difference, flatten, from_tree, keys, load, read_yaml, to_tree, to_yaml
from support.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of configs, as jobs/configs is."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.yaml").write_text(
        "train:\n  batch_size: 12\n  epochs: 3\nmodel:\n  kee: {layers: 2}\n"
    )
    (tmp_path / "configs" / "large.yaml").write_text("train: {batch_size: 4096, learning_rate: 5e-4}\n")
    return tmp_path / "configs"


def loaded(folder: Path, *argv: str) -> Config:
    return load(argv, folder=folder, default="small", description="Train.")


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the one line that a command line is refused with."""
    with pytest.raises(SystemExit) as exited:
        loaded(folder, *argv)
    out, err = capsys.readouterr()
    assert exited.value.code == 2
    assert not out
    assert err.count("\n") == 1
    return err.strip()


# The tree


def test_every_key_has_help_text() -> None:
    assert [key for key, (_, text) in keys().items() if not text.strip()] == []
    assert list(keys()) == list(flatten(to_tree(Config())))


def test_the_defaults_pass_their_own_checks_and_are_the_whole_of_an_empty_config() -> None:
    assert from_tree({}) == from_tree(to_tree(Config())) == Config()
    assert {key: default for key, (default, _) in keys().items()} == flatten(to_tree(Config()))


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("config", sorted((ROOT / "jobs" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_that_is_shipped_is_valid(config: Path) -> None:
    assert from_tree(read_yaml(config)) != Config()


# Mistakes


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.batch_sze=3", "train.batch_size"),
        ("train.batchsize=3", "train.batch_size"),
        ("batch_size=3", "train.batch_size"),
        ("data.learning_rate=1e-3", "train.learning_rate"),
        ("uri=http://mlflow:5000", "tracking.uri"),
        ("model_name=mine", "tracking.model_name"),
        ("data.hinge_margin=0.3", "loss.hinge_margin"),
        ("model.kee.wieght=1", "model.kee.weight"),
        ("trian.epochs=2", "train"),
        ("kee.weight=1", "model.kee"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_one(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, nearest: str
) -> None:
    assert refused(folder, capsys, override).endswith(f": no such key; nearest is {nearest}")


def test_an_unknown_key_without_a_near_one_points_to_the_list(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "xyzzy: no such key; --help lists every key" in refused(folder, capsys, "xyzzy=1")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("train.batch_size=many", "train.batch_size='many': should be a valid integer"),
        ("train.batch_size=2.5", "train.batch_size=2.5: should be a valid integer"),
        ("train.epochs=true", "train.epochs=True: should be a valid integer"),
        ("train.epochs=", "train.epochs='': should be a valid integer"),
        ("train.learning_rate=null", "train.learning_rate=None: should be a valid number"),
        ("train.use_gpu=1", "train.use_gpu=1: should be a valid boolean"),
        ("run.name=7", "run.name=7: should be a valid string"),
        ("train.sharding=zero", "train.sharding='zero': should be 'fsdp', 'hsdp' or 'ddp'"),
        (
            "loss.contrastive=siglip",
            "loss.contrastive='siglip': should be 'infonce', 'max_margin' or 'sigmoid'",
        ),
        ("train=3", "train=3: should be"),
        ("train.epochs.x=3", "train.epochs={'x': 3}: should be a valid integer"),
        ("data.crop_scale=[0.9]", "data.crop_scale"),
        ("data.shards=[a.tar, 3]", "data.shards.1=3: should be a valid string"),
    ],
)
def test_a_wrong_type_is_told_with_key_and_value(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, found: str
) -> None:
    assert found in refused(folder, capsys, override)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("train.epochs=0", "train.epochs=0: at least 1"),
        ("train.num_workers=13", "train.batch_size=12: at least one for each of train.num_workers=13"),
        (
            "train={num_workers: 5, micro_batch: 2}",
            "train.micro_batch=2: 0, or a divisor of a worker's share of train.batch_size, 3",
        ),
        ("data.weights=[3, 1]", "data.weights=(3.0, 1.0): one for each of the 0 patterns of data.shards"),
        ("data={shards: [a, b], weights: [1, 0]}", "data.weights=(1.0, 0.0): each above 0"),
        ("data.shuffle_buffer=-1", "data.shuffle_buffer=-1: 0 (off) or more"),
        ("data.mix_blocks=0", "data.mix_blocks=0: at least 1"),
        ("train.beta2=1.0", "train.beta2=1.0: 0 to below 1"),
        ("train.learning_rate=.nan", "train.learning_rate=nan: must be above 0"),
        ("loss.hinge_margin=3", "loss.hinge_margin=3.0: 0 to 2"),
        ("loss.contrastive_margin=-1", "loss.contrastive_margin=-1.0: 0 to 2"),
        ("loss.contrastive_warmup=100", "loss.contrastive_warmup=100.0: a share of the run, 0 to 1"),
        ("loss.contrastive=sigmoid", "loss.contrastive='sigmoid': needs a model with a learned logit bias"),
        ("model.logit_bias=10", "model.logit_bias=10.0: 0 (none) or below"),
        (
            "loss={negatives_as_texts: true, contrastive: max_margin}",
            "loss.negatives_as_texts=True: only loss.contrastive=infonce takes further texts, not max_margin",
        ),
        (
            "loss={negatives_as_texts: true, negatives: none}",
            "loss.negatives_as_texts=True: there are no negatives with loss.negatives=none",
        ),
        ("model.kee.layers=0", "model.kee.layers=0: at least 1"),
        ("data.crop_scale=[0.9, 0.5]", "data.crop_scale=(0.9, 0.5): 0 < low <= high <= 1"),
        ("data.actors_max=-1", "data.actors_max=-1: 0 or at least data.actors_min=1"),
        ("run.name=../other", "run.name='../other': letters, digits"),
        ("run.name=.hidden", "run.name='.hidden': letters, digits"),
    ],
)
def test_an_impossible_value_is_told_with_what_is_allowed(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, found: str
) -> None:
    assert found in refused(folder, capsys, override)


@pytest.mark.parametrize("override", ["train.batch_size", "=3", "train."])
def test_an_override_without_key_or_value_shows_how_to_write_one(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    assert f"{override!r}: write an override as KEY=VALUE" in refused(folder, capsys, override)


def test_an_override_that_is_no_yaml_is_told_with_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "data.shards='[a': not a YAML value" in refused(folder, capsys, "data.shards=[a")


def test_every_mistake_has_its_own_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        loaded(folder, "train.epochs=0.5", "data.reders=3")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any("data.reders: no such key; nearest is data.readers" in line for line in lines)
    assert any("train.epochs=0.5: should be a valid integer" in line for line in lines)


def test_no_yaml_tag_makes_an_object(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("run: {name: !!python/object/apply:os.getcwd []}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:1: not YAML"):
        read_yaml(file)


# Files


def test_a_mistake_in_a_file_names_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "wrong.yaml"
    path.write_text("train: {epoch: 3}\n")
    line = refused(folder, capsys, "--config", "wrong", "train.epochs=2")
    assert f"{path}: train.epoch: no such key; nearest is train.epochs" in line


def test_a_file_that_is_no_yaml_is_told_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "wrong.yaml"
    path.write_text("train:\n  epochs: 3\n  batch_size: [1\n")
    assert f"{path}:4: not YAML" in refused(folder, capsys, "--config", "wrong")
    path.write_text("train:\n  epochs: 3\n\tbatch_size: 1\n")
    assert f"{path}:3: not YAML" in refused(folder, capsys, "--config", str(path))


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"- train\n", "must hold keys such as `train:`, not list"), (b"\xff\xfe\x00", "cannot be read")],
)
def test_a_file_that_holds_no_keys_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, found: str
) -> None:
    path = folder / "wrong.yaml"
    path.write_bytes(content)
    assert f"{path}: {found}" in refused(folder, capsys, "--config", "wrong")


def test_an_empty_file_is_the_defaults(folder: Path) -> None:
    (folder / "empty.yaml").write_text("# nothing\n")
    assert loaded(folder, "--config", "empty") == Config()


def test_an_unknown_config_is_told_with_the_known_ones_and_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(folder, capsys, "--config", "smal")
    assert line.endswith("--config smal: no such file, and the configs are large, small; nearest is small")
    assert refused(folder, capsys, "--config", "x.yaml").endswith("the configs are large, small")


def test_a_config_is_named_or_a_path(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("train: {epochs: 7}\n")
    assert loaded(folder).train.batch_size == 12
    assert loaded(folder, "--config", "large").train.batch_size == 4096
    assert loaded(folder, "--config", str(own)).train.epochs == 7


# Values


def test_an_override_beats_the_file_and_the_last_one_wins(folder: Path) -> None:
    config = loaded(folder, "train.batch_size=8", "model.kee.heads=4", "train.batch_size=6")
    assert (config.train.batch_size, config.train.epochs) == (6, 3)
    assert (config.model.kee.layers, config.model.kee.heads) == (2, 4)


def test_overrides_may_stand_before_and_after_the_config(folder: Path) -> None:
    config = loaded(folder, "train.epochs=1", "--config", "large", "train.warmup=0.5")
    assert (config.train.epochs, config.train.batch_size, config.train.warmup) == (1, 4096, 0.5)


def test_a_section_may_be_overridden_in_part(folder: Path) -> None:
    config = loaded(folder, "train={batch_size: 4}")
    assert (config.train.batch_size, config.train.epochs) == (4, 3)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e-4", 2.5e-4), ("1e+1", 10.0), ("1", 1.0)]
)
def test_a_learning_rate_is_a_number_with_or_without_a_dot(folder: Path, text: str, value: float) -> None:
    assert loaded(folder, f"train.learning_rate={text}").train.learning_rate == value
    (folder / "rate.yaml").write_text(f"train: {{learning_rate: {text}}}\n")
    assert loaded(folder, "--config", "rate").train.learning_rate == value


@pytest.mark.parametrize(
    ("text", "shards"),
    [
        ("/data/{000..127}.tar", ("/data/{000..127}.tar",)),
        ("s3://bucket/*.tar", ("s3://bucket/*.tar",)),
        ("[a.tar, b.tar]", ("a.tar", "b.tar")),
        ("", ()),
        ("[]", ()),
    ],
)
def test_one_text_stands_for_a_list_of_one(folder: Path, text: str, shards: tuple[str, ...]) -> None:
    assert loaded(folder, f"data.shards={text}").data.shards == shards
    assert loaded(folder, f"evaluate.retrieval={text}").evaluate.retrieval == shards


def test_a_date_is_a_name_like_any_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded(folder, "run.name=2026-01-31").run.name == "2026-01-31"
    assert "run.seed='2026-01-31': should be a valid integer" in refused(
        folder, capsys, "run.seed=2026-01-31"
    )


# What is printed


def test_help_lists_every_key_with_default_and_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        loaded(folder, "--help")
    assert exited.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Train." in lines
    for key, (_, text) in keys().items():
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"  {key}=")]
        assert lines[at + 1].strip() == text
    for line in ("train.batch_size=256", "train.learning_rate=2e-06", "data.crop_scale=[0.9, 1.0]"):
        assert f"  {line}" in lines
    assert {'  run.name=""', "  data.shards=[]", "  train.use_gpu=null"} <= set(lines)


def test_the_printed_config_is_read_back_as_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["train.learning_rate=1e-5", "data.shards=[a.tar, 's3://b/*.tar']", "run.name=first"]
    with pytest.raises(SystemExit) as exited:
        loaded(folder, *overrides, "--print-config")
    assert exited.value.code == 0
    printed = folder.parent / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    config = loaded(folder, *overrides)
    assert loaded(folder, "--config", str(printed)) == config
    assert yaml.safe_load(to_yaml(config)) == to_tree(config)


def test_a_config_is_printed_without_credentials_and_what_was_masked_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["data.shards=s3://key:planted@bucket/*.tar", "tracking.uri=http://user:planted@mlflow"]
    with pytest.raises(SystemExit):
        loaded(folder, *overrides, "--print-config")
    printed = capsys.readouterr().out
    assert "planted" not in printed
    assert "s3://***@bucket/*.tar" in printed
    (folder / "printed.yaml").write_text(printed)
    assert "data.shards=['s3://***@bucket/*.tar']: *** stands for" in refused(
        folder, capsys, "--config", "printed"
    )
    assert "planted" not in refused(folder, capsys, "https://user:planted@host/{0..9}.tar")


@pytest.mark.parametrize("name", ["1e3", "12e5", "007", "2026-01-31", "on", "null", "1_000"])
def test_a_name_that_looks_like_a_number_stays_a_name_when_printed(folder: Path, name: str) -> None:
    config = loaded(folder, f"run.name={name!r}")
    assert config.run.name == name
    (folder / "printed.yaml").write_text(to_yaml(config))
    assert loaded(folder, "--config", "printed") == config


def test_the_difference_of_two_configs_is_a_line_a_key() -> None:
    old = Config()
    new = Config(train=TrainConfig(epochs=3), data=DataConfig(shards=("a.tar",)))
    assert difference(to_tree(old), to_tree(new)) == [
        "data.shards: [] -> ['a.tar']",
        "train.epochs: 10 -> 3",
    ]
    assert difference(to_tree(new), to_tree(new)) == []
    assert difference({"train": {"gone": 1}}, {"train": {"new": 2}}) == [
        "train.gone: 1 -> '(not set)'",
        "train.new: '(not set)' -> 2",
    ]


# The program


def test_the_program_refuses_a_mistake_with_one_line_and_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "jobs/pretrain.py", "train.batch_sze=3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "pretrain.py: config: train.batch_sze: no such key; nearest is train.batch_size"
    ]


@pytest.mark.parametrize(("argument", "status"), [("train.batch_sze=3", 2), ("--help", 0)])
def test_help_and_mistakes_need_neither_torch_nor_ray(argument: str, status: int) -> None:
    program = (
        "import runpy, sys\n"
        "for name in ('torch', 'ray', 'mlflow', 'spacy', 'open_clip'):\n"
        "    sys.modules[name] = None  # an import of it fails\n"
        f"sys.argv = ['pretrain.py', {argument!r}]\n"
        "runpy.run_path('jobs/pretrain.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
