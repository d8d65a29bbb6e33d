"""Full fine-tuning: train every weight of the backbone. Never packed, because its cells share no frozen weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.base import Method, OptimizerGroup, Stage
from tasks.core.types import EncodedExample, UsageError


class Full(Method):
    """Full fine-tuning of the backbone."""

    name = "full"
    trained_part = "all weights"
    is_packable = False

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 1e-5
        weight_decay: float = 0.01

    config: Config

    def build(self) -> None:
        self.backbone.unfreeze()
        self.weights = (
            self.backbone.model
        )  # registered as a submodule, so that its weights are trained, saved and counted

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        if len(seeds) > 1:
            raise UsageError(f"method full trains one cell at a time, found {len(seeds)}")
        self.backbone.restore_pretrained()  # an earlier cell may have trained this backbone
        super().begin_stage(stage, seeds, train_examples)

    def train(self, mode: bool = True) -> "Full":
        """Keep the backbone in evaluation mode: its dropout is off, as for every method."""
        super().train(mode)
        self.backbone.model.eval()
        return self

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No weight decay on norms and biases."""
        is_vector = self.get_parameter(parameter_name).dim() < 2
        return OptimizerGroup(self.config.lr, 0.0 if is_vector else self.config.weight_decay)
