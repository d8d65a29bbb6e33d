"""Full fine-tuning: every weight of the backbone learns. Never packed: its cells share no frozen part."""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.base import Method, Rate, Stage
from tasks.example import Encoded, UsageError


class Full(Method):
    name = "full"
    what = "all weights"
    packable = False

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 1e-5
        weight_decay: float = 0.01

    config: Config

    def build(self) -> None:
        self.backbone.train()
        self.weights = self.backbone.model  # registered: these are what this method learns, saves and counts

    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        if len(seeds) > 1:
            raise UsageError(f"method full trains one cell at a time, found {len(seeds)}")
        self.backbone.restore()  # a second cell starts from the pretrained weights, not from the first cell's
        super().enter(stage, seeds, train)

    def train(self, mode: bool = True) -> "Full":
        """The backbone stays in evaluation mode: its dropout, where it has any, is off for every method alike."""
        super().train(mode)
        self.backbone.model.eval()
        return self

    def rate(self, name: str) -> Rate:
        """No decay on norms and biases."""
        vector = self.get_parameter(name).dim() < 2
        return Rate(self.config.lr, 0.0 if vector else self.config.weight_decay)
