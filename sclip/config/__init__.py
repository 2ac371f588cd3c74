"""The configuration of a run: one tree of frozen dataclasses, the only place that holds defaults.

The tree needs only the standard library, so every package may import it. `sclip.config.loader` fills it from YAML
and from dotted overrides, and takes the help text of a key from the docstring below its field.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sclip.config.checks import ConfigError, Section
from sclip.config.data import DataConfig, ScenesConfig
from sclip.config.model import KEEConfig, LoRAConfig, LossConfig, MixtureConfig, ModelConfig
from sclip.config.run import EvaluateConfig, Gate, RunConfig, TrackingConfig, parse_gate
from sclip.config.train import CheckpointConfig, HealthConfig, TrainConfig

__all__ = [
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "Gate",
    "HealthConfig",
    "KEEConfig",
    "LoRAConfig",
    "LossConfig",
    "MixtureConfig",
    "ModelConfig",
    "RunConfig",
    "ScenesConfig",
    "TrackingConfig",
    "TrainConfig",
    "parse_gate",
]


@dataclass(frozen=True)
class Config(Section):
    """All settings of a run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def reads_graphs(self) -> bool:
        """Whether training needs scene graphs."""
        loss = self.loss
        return bool(self.model.kee.enabled or loss.negatives != "none" or loss.units or loss.positives)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.loss.contrastive != "sigmoid" or self.model.logit_bias != 0,
            "loss.contrastive",
            "needs a model with a learned logit bias; set model.logit_bias (SigLIP starts at -10)",
        )
        self.require(
            self.loss.distil == 0 or bool(self.run.init_from or self.model.pretrained),
            "loss.distil",
            "random weights hold nothing to keep; set model.pretrained or run.init_from, or loss.distil=0",
        )
        self.require(
            not self.model.lora.rank or bool(self.model.pretrained or self.run.init_from),
            "model.lora.rank",
            "LoRA needs trained weights; set model.pretrained or run.init_from, or model.lora.rank=0",
        )
        self.require(
            self.loss.negatives != "foreign" or bool(self.data.negatives_field),
            "loss.negatives",
            "foreign negatives come from fields; name these in data.negatives_field",
        )
        every = self.checkpoint.every
        self.require(
            self.evaluate.every % every == 0,
            "evaluate.every",
            f"must be 0 or a multiple of checkpoint.every={every}",
        )
        train = self.train
        kee = self.model.kee.enabled and train.lr_scale_kee > 0
        self.require(
            kee or train.lr_scale_image > 0 or train.lr_scale_text > 0,
            "train.lr_scale_image",
            "towers and encoder are all frozen or off; set one of train.lr_scale_image, _text, _kee above 0",
        )
