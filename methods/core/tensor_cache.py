"""TODO."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor


class TensorVersionCache:
    """What was made from learned tensors, for as long as none of them changes or moves.

    Torch's fused optimisers change tensors unseen: clear `kept` before one may step.
    """

    def __init__(self) -> None:
        self.entries: dict[Hashable, tuple] = {}

    def __call__(self, key: Hashable, tensors: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        stamp = [(id(tensor), tensor._version, tensor.device) for tensor in tensors]
        if key not in self.entries or self.entries[key][0] != stamp:
            self.entries[key] = stamp, tensors, compute()  # the tensors too, so that no other one takes their ids
        return self.entries[key][-1]
