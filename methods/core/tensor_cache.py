"""Cache of values that are computed from trainable tensors."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor


class TensorVersionCache:
    """Cache of values computed from tensors, valid until one of the tensors changes or moves to another device.

    Changes are detected by the tensors' version counters, which torch's fused optimizers do not increase: clear
    `entries` before such an optimizer can step.
    """

    def __init__(self) -> None:
        self.entries: dict[Hashable, tuple] = {}

    def __call__(self, key: Hashable, tensors: Sequence[Tensor], compute: Callable[[], Any]) -> Any:
        """The cached value of `key`, computed anew if one of the tensors has changed."""
        stamp = [(id(tensor), tensor._version, tensor.device) for tensor in tensors]
        if key not in self.entries or self.entries[key][0] != stamp:
            self.entries[key] = stamp, tensors, compute()  # references to the tensors keep their ids from being reused
        return self.entries[key][-1]
