"""SSF: y = gamma * (W x) + beta at every linear it is put on (Lian et al. 2022, arXiv:2210.08823, eq. 3).

Trained: 2 d_out numbers for every such linear.
"""

from dataclasses import dataclass

import torch
from torch import nn

from methods.base import Bank, Method, Rate


class ScaleShift(nn.Module):
    """gamma * y + beta. It starts at gamma = 1 and beta = 0, which change nothing."""

    def __init__(self, linear, rows):
        super().__init__()
        self.size, self.gamma, self.beta = linear.out_features, Bank(rows), Bank(rows)

    def forward(self, x, y):  # x [b, s, in], y = W x [b, s, out]; a bank gives each row that of its slot, [b, 1, out]
        return self.gamma().to(y.dtype) * y + self.beta().to(y.dtype)


class MyAdapter(Method):
    name = "ssf"
    paper = "Lian et al. 2022, arXiv:2210.08823"
    what = "a scale and a shift at each linear"

    @dataclass(frozen=True)
    class Config(Method.Config):
        lr: float = 5e-3
        sites: str = "q k v o"

    def build(self):  # once: hooks on the backbone's linears
        self.places = self.backbone.attach(self.config.sites, lambda linear: ScaleShift(linear, self.rows))

    def start(self, draw, train):  # for each slot; draw: its torch.Generator, train: its encoded examples
        for place in self.places.values():
            place.gamma.add(torch.ones(1, place.size))
            place.beta.add(torch.zeros(1, place.size))

    def rate(self, name):  # no weight decay: it would pull gamma away from 1
        return Rate(self.config.lr)
