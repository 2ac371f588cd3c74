"""The configuration: every key has help text, and every mistake is one line that says what to write."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from braceexpand import braceexpand

from sclip.config import Config, ConfigError, KEEConfig
from sclip.config.loader import (
    changed,
    flatten,
    from_tree,
    keys,
    load,
    read_yaml,
    to_tree,
    to_yaml,
)
from support.commands import command
from support.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of configs like jobs/configs."""
    (tmp_path / "small.yaml").write_text(
        "train:\n  batch_size: 12\n  epochs: 3\nmodel:\n  kee: {layers: 2}\n"
    )
    (tmp_path / "large.yaml").write_text("train: {batch_size: 4096, learning_rate: 5e-4}\n")
    return tmp_path


def loaded(folder: Path, *overrides: str, config: str = "small") -> Config:
    return load(overrides, config, folder)


def refused(folder: Path, *overrides: str, config: str = "small") -> str:
    """Return the error with which overrides or a config are refused."""
    with pytest.raises(ConfigError) as refusal:
        loaded(folder, *overrides, config=config)
    return str(refusal.value)


def test_every_key_has_help_text_and_the_defaults_pass_their_own_checks() -> None:
    assert [key for key, (_, text) in keys().items() if not text.strip()] == []
    assert list(keys()) == list(flatten(to_tree(Config())))
    assert from_tree({}) == from_tree(to_tree(Config())) == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 3  # type: ignore[misc]


def test_every_config_that_is_shipped_is_valid() -> None:
    for config in (ROOT / "jobs" / "configs").glob("*.yaml"):
        assert from_tree(read_yaml(config)) != Config(), config


def test_an_unknown_key_is_refused_with_the_nearest_known_key(folder: Path) -> None:
    for override, nearest in {
        "train.batch_sze=3": "train.batch_size",
        "batch_size=3": "train.batch_size",
        "data.hinge_margin=0.3": "loss.hinge_margin",
        "trian.epochs=2": "train",
        "kee.weight=1": "model.kee",
    }.items():
        assert refused(folder, override).endswith(f": no such key; nearest is {nearest}")


VALUES = {
    # Types, which pydantic checks: a string, a fraction or a boolean is no integer, and 1 is no boolean.
    "train.batch_size=many": "train.batch_size='many': should be a valid integer",
    "train.epochs=true": "train.epochs=True: should be a valid integer",
    "train.use_gpu=1": "train.use_gpu=1: should be a valid boolean; write true or false",
    "model.kee.enabled=off": "model.kee.enabled='off': should be a valid boolean; write true or false",
    "run.seed=2026-01-31": "run.seed='2026-01-31': should be a valid integer",
    "train.sharding=zero": "train.sharding='zero': should be 'auto', 'ddp', 'hsdp' or 'fsdp'",
    "tracking.also=[tensorbord]": "tracking.also.0='tensorbord': should be 'tensorboard' or 'wandb'",
    "data.shards=[a.tar, 3]": "data.shards.1=3: should be a valid string",
    # Limits of one field.
    "train.lr_scale_kee=.inf": "train.lr_scale_kee=inf: 0 (frozen) or more",
    "train.beta2=1.0": "train.beta2=1.0: at least 0, below 1",
    "evaluate.root=": "evaluate.root='': name a folder",
    "data.crop_scale=[0.9, 0.5]": "data.crop_scale=(0.9, 0.5): 0 < low <= high <= 1",
    "data={shards: [a, b], weights: [1, 0]}": "data.weights=(1.0, 0.0): each above 0",
    "health.profile_steps=[0, 2]": "health.profile_steps=(0, 2): a first step and a number of steps",
    "run.name=../other": "run.name='../other': letters, digits",
    # Rules over several fields.
    "train.num_workers=13": "train.batch_size=12: at least one sample for each of train.num_workers=13",
    "train={num_workers: 5, micro_batch: 2}":
        "train.micro_batch=2: must be 0 or divide a worker's share of train.batch_size (3 with 5",
    "train={num_workers: 2, min_workers: 3}": "train.min_workers=3: 0, or 1 to train.num_workers=2",
    "train={num_workers: 4, min_workers: 2, sharding: hsdp}": "train.min_workers=2: train.sharding=hsdp needs",
    "train={num_workers: 4, shard_ranks: 2}": "train.shard_ranks=2: needs train.sharding=hsdp, not auto",
    "train={num_workers: 4, shard_ranks: 3, sharding: hsdp}": "train.shard_ranks=3: 0 (the workers of one node), or",
    "train={lr_scale_image: 0, lr_scale_text: 0, lr_scale_kee: 0}": "train.lr_scale_image=0.0: towers and encoder are",
    "data.weights=[3, 1]": "data.weights=(3.0, 1.0): needs one weight for each of the 0 patterns of data.shards",
    "data={caption_field: 'a, b', caption_weights: [1]}":
        "data.caption_weights=(1.0,): needs one weight for each of the 2 fields of data.caption_field",
    "data={caption_field: 'a, b', caption_weights: [0, 0]}": "data.caption_weights=(0.0, 0.0): each 0 or more, at",
    "data.negatives_field=.jpg": "data.negatives_field='.jpg': the suffix after a dot must be lower case, and",
    "data.foreign_share=0.5": "data.foreign_share=0.5: no foreign texts are read; set data.negatives_field",
    "loss.negatives=foreign": "loss.negatives='foreign': foreign negatives come from fields; name",
    "data.actors_max=-1": "data.actors_max=-1: 0 or at least data.actors_min=1",
    "data={annotations: false, min_relations: 1}": "data.annotations=False: data.min_objects",
    "data.image_suffixes=": "data.image_suffixes=(): one or more suffixes in lower case, without the dot",
    "data.image_suffixes=[png, .jpg]": "data.image_suffixes=('png', '.jpg'): one or more suffixes in lower case",
    "data.text_suffixes=TXT": "data.text_suffixes=('TXT',): one or more suffixes in lower case",
    "data.image_suffixes=[jpg, json]": "data.image_suffixes=('jpg', 'json'): json and graph.json.gz have",
    "data.text_suffixes=[txt, png]": "data.text_suffixes=('txt', 'png'): also in data.image_suffixes: png",
    "data={key_ends_at: last_dot, image_suffixes: input.jpg}":
        "data.image_suffixes=('input.jpg',): with data.key_ends_at=last_dot, no suffix may contain a dot",
    "data.key_ends_at=dot": "data.key_ends_at='dot': should be 'first_dot' or 'last_dot'",
    "scenes.family=c": "scenes.family='c': should be 'a' or 'b'",
    "evaluate.every=750": "evaluate.every=750: must be 0 or a multiple of checkpoint.every=500",
    "loss.contrastive=sigmoid": "loss.contrastive='sigmoid': needs a model with a learned logit bias",
    "loss.mixture={exchange: 0, replace_object: 0, replace_attribute: 0, replace_relation: 0}": (
        "loss.mixture.exchange=0.0: one share of loss.mixture must be above 0"
    ),
    "model.context_length=2": "model.context_length=2: 0 (the architecture's own) or at least 3",
    "loss.distil=1": "loss.distil=1.0: random weights hold nothing to keep; set model.pretrained or run.init_from",
    "loss={negatives_as_texts: true, contrastive: max_margin}":
        "loss.negatives_as_texts=True: needs loss.contrastive=infonce, not max_margin",
    "loss={negatives_as_texts: true, negatives: none}":
        "loss.negatives_as_texts=True: needs negatives; set loss.negatives",
    # Malformed overrides and malformed YAML.
    "xyzzy=1": "xyzzy: no such key; --help lists every key",
    "train.batch_size": "'train.batch_size': write an override as KEY=VALUE",
    "=3": "'=3': write an override as KEY=VALUE",
    "data.shards=[a": "data.shards='[a': not a YAML value",
    "data.shards=*.tar": "quote it: data.shards='\"*.tar\"'",
}  # fmt: skip


def test_a_wrong_value_is_refused_in_one_line_with_key_value_and_remedy(folder: Path) -> None:
    for override, expected in VALUES.items():
        line = refused(folder, override)
        assert expected in line
        assert "\n" not in line


REFUSED = {
    0: (
        "run.progress_every_s data.{actors_min,actor_cpus,read_cpus,open_shards} loss.negatives_per_caption "
        "scenes.{train_samples,heldout_samples} model.kee.{layers,heads,triples,phrase_tokens} "
        "train.{epochs,batch_size} "
        "train.{worker_threads,log_every,resize_every_s,collective_timeout_s,worker_cpus,learning_rate} "
        "checkpoint.{every,keep_last} "
        "health.max_skipped evaluate.{retrieval_images,batch_size,cpus} data.foreign_share"
    ),
    -1: (
        "data.{shuffle_buffer,readers,block_samples,max_quarantined,max_unreadable_shards} model.kee.weight "
        "data.{min_objects,min_attributes,min_relations} loss.{contrastive_margin,contrastive_warmup} "
        "model.context_length "
        "loss.{units,positives,positive_margin} "
        "loss.mixture.{exchange,replace_object,replace_attribute,replace_relation} "
        "loss.{hinge_weight,hinge_margin,distil} train.{num_workers,min_workers,shard_ranks,micro_batch} "
        "train.{lr_scale_image,lr_scale_text,lr_scale_kee,weight_decay,beta2,warmup,max_grad_norm,ema_decay} "
        "checkpoint.{keep_best,disk_budget_gb} evaluate.{every,gpus}"
    ),
    3: (
        "data.max_quarantined model.logit_bias loss.{contrastive_margin,contrastive_warmup} "
        "loss.{positive_margin,hinge_margin} "
        "train.{beta2,warmup,ema_decay} evaluate.gpus"
    ),
    -2: "run.max_failures",
    31: "scenes.image_size",
}
"""Keys, by a value that each of them refuses."""


@pytest.mark.parametrize("value", REFUSED)
def test_every_numeric_limit_is_enforced(value: int) -> None:
    for key in (key for keys_ in REFUSED[value].split() for key in braceexpand(keys_)):
        with pytest.raises(ConfigError, match=rf"^config: {key}={value}(\.0)?: [^\n]+$"):
            changed(Config(), {key: value})


def test_every_mistake_has_its_own_line() -> None:
    with pytest.raises(ConfigError) as raised:
        from_tree({"train": {"epochs": 0, "warmup": 2}, "data": {"reders": 3}, "run": {"seed": 0.5}})
    assert str(raised.value).splitlines() == [
        "config: run.seed=0.5: should be a valid integer",
        "config: data.reders: no such key; nearest is data.readers",
        "config: train.epochs=0: at least 1",
        "config: train.warmup=2.0: a share of the run, 0 to 1",
    ]
    with pytest.raises(ConfigError, match=r"^model.kee.layers=0: at least 1\nmodel.kee.heads=0: at least 1$"):
        KEEConfig(layers=0, heads=0)


def test_a_mistake_in_a_file_names_the_file(folder: Path) -> None:
    path = folder / "wrong.yaml"
    for content, message in (
        (b"train: {epoch: 3}\n", ": train.epoch: no such key; nearest is train.epochs"),
        (b"train:\n  epochs: 3\n  batch_size: [1\n", ":4: not YAML"),
        (b"run: {name: !!python/object/apply:os.getcwd []}\n", ":1: not YAML"),
        (b"- train\n", ": must hold keys such as `train:`, not list"),
        (b"\xff\xfe\x00", ": cannot be read"),
    ):
        path.write_bytes(content)
        assert f"{path}{message}" in refused(folder, "train.epochs=2", config="wrong")


def test_a_config_is_given_by_name_or_path_and_may_be_empty(folder: Path) -> None:
    (folder / "empty.yaml").write_text("# nothing\n")
    assert loaded(folder).train.batch_size == 12
    assert loaded(folder, config="large").train.batch_size == 4096
    assert loaded(folder, config=str(folder / "empty.yaml")) == Config()
    known = "--config smal: no such file, and the configs are empty, large, small; nearest is small"
    assert refused(folder, config="smal").endswith(known)
    assert refused(folder, config="x.yaml").endswith("the configs are empty, large, small")


def test_an_override_beats_the_file_and_the_last_one_wins(folder: Path) -> None:
    config = loaded(folder, "train={batch_size: 8}", "model.kee.heads=4", "train.batch_size=6")
    assert (config.train.batch_size, config.train.epochs) == (6, 3)
    assert (config.model.kee.layers, config.model.kee.heads) == (2, 4)


def test_a_learning_rate_is_a_number_with_or_without_a_dot(folder: Path) -> None:
    for text, value in (("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e-4", 2.5e-4), ("1", 1.0)):
        assert loaded(folder, f"train.learning_rate={text}").train.learning_rate == value
        (folder / "rate.yaml").write_text(f"train: {{learning_rate: {text}}}\n")
        assert loaded(folder, config="rate").train.learning_rate == value


def test_on_and_off_are_texts_as_in_yaml_1_2(folder: Path) -> None:
    for text in ("on", "off"):
        assert loaded(folder, f"model.quick_gelu={text}").model.quick_gelu == text
    assert loaded(folder, "train.use_gpu=True").train.use_gpu is True


def test_a_single_string_is_read_as_a_list_of_one(folder: Path) -> None:
    pattern = "s3://b/{000..127}.tar"
    for text, shards in ((pattern, (pattern,)), ("[a.tar, b.tar]", ("a.tar", "b.tar")), ("", ())):
        assert loaded(folder, f"data.shards={text}").data.shards == shards
        assert loaded(folder, f"evaluate.retrieval={text}").evaluate.retrieval == shards


@pytest.mark.parametrize("name", ["pretrain", "sweep", "ablation", "doctor", "inspect"])
def test_help_lists_every_key_with_default_and_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(name)("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for key, (_, text) in keys().items():
        (index,) = [number for number, line in enumerate(lines) if line.startswith(f"  {key}=")]
        assert lines[index + 1].strip() == text
    assert {"  train.batch_size=256", "  data.crop_scale=[0.9, 1.0]", '  run.name=""'} <= set(lines)


def test_a_config_is_printed_without_credentials_and_a_masked_value_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "data.shards=s3://key:planted@bucket/*.tar"
    assert (
        command("pretrain")("train.epochs=1", "--config", folder / "large.yaml", secret, "--print-config")
        == 0
    )
    printed = capsys.readouterr().out
    assert "s3://***@bucket/*.tar" in printed
    assert "planted" not in printed
    (folder / "printed.yaml").write_text(printed)
    assert (read_yaml(folder / "printed.yaml")["train"]["batch_size"]) == 4096
    assert "data.shards=['s3://***@bucket/*.tar']: *** stands for" in refused(folder, config="printed")
    assert "planted" not in refused(folder, "https://user:planted@host/{0..9}.tar")


def test_a_printed_config_reads_back_unchanged_even_if_a_name_looks_like_a_number(
    folder: Path,
) -> None:
    for name in ("first", "1e3", "007", "2026-01-31", "on", "null", "1_000"):
        config = loaded(
            folder, f"run.name={name!r}", "train.learning_rate=1e-5", "data.shards=[a.tar, 's3://b/*.tar']"
        )
        assert config.run.name == name
        (folder / "printed.yaml").write_text(to_yaml(config))
        assert loaded(folder, config="printed") == config
        assert yaml.safe_load(to_yaml(config))["train"] == to_tree(config)["train"]


def test_the_program_refuses_a_mistake_with_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("pretrain")("train.batch_sze=3") == 2
    message = "pretrain: config: train.batch_sze: no such key; nearest is train.batch_size\n"
    assert capsys.readouterr() == ("", message)
