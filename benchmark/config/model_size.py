"""TODO."""

import re
from functools import cache

EMBEDDED_MODEL_PARAMETERS = 1e6  # parameters of the embedded backbone


@cache
def parse_parameter_count(backbone_name: str) -> float:
    """Of a backbone, as its name says: 0.5B, 7B."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*([BbMm])\b", backbone_name)
    return float(found[1]) * (1e9 if found[2] in "Bb" else 1e6) if found else EMBEDDED_MODEL_PARAMETERS
