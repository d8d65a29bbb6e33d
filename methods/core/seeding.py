"""Random generators derived from keys."""

from hashlib import sha256

import torch


def create_generator(*keys: object) -> torch.Generator:
    """Random generator seeded by a hash of its keys, so that no sample depends on other generators."""
    digest = sha256("/".join(map(str, keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
