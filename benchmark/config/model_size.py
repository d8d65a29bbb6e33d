"""Size of a backbone, read from its name without loading it."""

import re
from functools import cache

EMBEDDED_MODEL_PARAMETERS = 1e6  # parameters of the bundled tiny model


@cache
def parse_parameter_count(backbone_name: str) -> float:
    """Number of parameters according to a backbone's name (`0.5B`, `7B`); without one, that of the tiny model."""
    match = re.search(r"(\d+(?:\.\d+)?)\s*([BbMm])\b", backbone_name)
    if not match:
        return EMBEDDED_MODEL_PARAMETERS
    return float(match[1]) * (1e9 if match[2] in "Bb" else 1e6)
