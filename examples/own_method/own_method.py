"""SSF: y = gamma * (W x) + beta at every adapted linear layer (Lian et al. 2022, arXiv:2210.08823, eq. 3).

Trained parameters: 2 d_out for each of these layers.
"""

from dataclasses import dataclass

import torch
from torch import nn

from methods.base import Method, OptimizerGroup, SlotParameter


class ScaleShift(nn.Module):
    """gamma * y + beta. It starts at gamma = 1 and beta = 0, which change nothing."""

    def __init__(self, linear, slot_context):
        super().__init__()
        self.out_features = linear.out_features
        self.gamma, self.beta = SlotParameter(slot_context), SlotParameter(slot_context)

    def forward(self, x, y):  # x [b, s, in], y = W x [b, s, out]; gamma() [b, 1, out]: the tensor of each row's slot
        return self.gamma().to(y.dtype) * y + self.beta().to(y.dtype)


class MyAdapter(Method):
    name = "ssf"
    paper = "Lian et al. 2022, arXiv:2210.08823"
    trained_part = "a scale and a shift at each linear"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 5e-3
        sites: str = "q k v o"

    def build(self):  # called once: adds hooks to the linear layers of the backbone
        self.layers = self.backbone.attach(self.config.sites, lambda linear: ScaleShift(linear, self.slot_context))

    def initialize_slot(self, generator, train_examples):  # called for each slot, with the slot's own torch.Generator
        for layer in self.layers.values():
            layer.gamma.add_slot(torch.ones(1, layer.out_features))
            layer.beta.add_slot(torch.zeros(1, layer.out_features))

    def optimizer_group(self, parameter_name):  # no weight decay: it would pull gamma away from 1
        return OptimizerGroup(self.config.lr)
