"""Full fine-tuning: every weight of the backbone learns. Never packed: its cells share no frozen part."""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.base import Method, OptimizerGroup, Stage
from tasks.core.types import EncodedExample, UsageError


class Full(Method):
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
        self.weights = self.backbone.model  # registered: these are what this method learns, saves and counts

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        if len(seeds) > 1:
            raise UsageError(f"method full trains one cell at a time, found {len(seeds)}")
        self.backbone.restore_pretrained()  # a second cell starts from the pretrained weights, not from the first cell's
        super().begin_stage(stage, seeds, train_examples)

    def train(self, mode: bool = True) -> "Full":
        """The backbone stays in evaluation mode: its dropout, where it has any, is off for every method alike."""
        super().train(mode)
        self.backbone.model.eval()
        return self

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        """No decay on norms and biases."""
        vector = self.get_parameter(parameter_name).dim() < 2
        return OptimizerGroup(self.config.lr, 0.0 if vector else self.config.weight_decay)
