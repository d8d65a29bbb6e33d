"""What a cell will cost: as much as cells like it did in this folder, else a rough figure, and it says which."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from statistics import fmean
from typing import Any

from benchmark import catalogue
from benchmark.budget import Budget
from benchmark.grid import TARGET, Planned
from benchmark.profile import Profile

# Rough figures for a folder without results, of the public data and the samples: tokens of an item, sizes of full sets.
TOKENS = 120
TEST = 3000
TRAIN = 30_000
SAMPLES = 60, 240, 1080
TINY = 1e6  # parameters of the embedded backbone
LARGE = 1e8  # parameters from which on a CPU is no place to train
FLOPS = {"cpu": 5e10, "cuda": 1.5e14}  # of one core (float32) and of one large GPU (bfloat16), well used
FIXED = 1.0  # seconds of a cell that neither train nor score
LABELS = 8  # of a choice task, for k shots per label


class Prices:
    """Seconds of cells, by what is known best: same method, task and shots; same method and task; same method."""

    def __init__(self, profile: Profile, results: Iterable[Mapping[str, Any]], device: str = "cpu") -> None:
        self.profile, self.device = profile, device
        self.known: dict[tuple, list[float]] = defaultdict(list)
        for result in results:
            if result["state"] == "done" and result.get("cost", {}).get("devices", 1) == profile.devices:
                cell = result["cell"]
                for key in self.keys(cell["method"], cell["task"], cell["shots"], cell["stage"]):
                    self.known[key].append(result["times"]["seconds"])

    @staticmethod
    def keys(method: str, task: str, shots: int | str, stage: str) -> list[tuple]:
        return [(method, stage, task, shots), (method, stage, task), (method, stage)]

    def seconds(self, planned: Planned) -> tuple[float, bool]:
        """(seconds, whether cells like it were measured in this folder)."""
        cell = planned.cell
        for key in self.keys(cell.method, cell.task, cell.shots, cell.stage):
            if key in self.known:
                return fmean(self.known[key]), True
        return self.rough(planned), False

    def rough(self, planned: Planned) -> float:
        """Operations of training and scoring, over what a device does per second."""
        profile, cell = self.profile, planned.cell
        limit, budget = profile.limit, planned.parts["budget"]
        tokens, test, full = SAMPLES if profile.source == "sample" else (TOKENS, TEST, TRAIN)
        test = min(test, limit.get("test", test))
        size = parameters(profile.backbone.name)
        facts = catalogue.method(cell.method)
        if facts["fixed"] and facts["guesses"]:
            return FIXED  # the backbone is never asked
        passed = test * tokens if cell.stage == TARGET else 0.0
        if budget:
            shots = cell.shots * LABELS if isinstance(cell.shots, int) else full
            examples = min(shots, limit.get("train", shots)) * len(planned.members)
            steps = Budget(**budget).steps(examples)
            # backward costs two forwards; devices share out the rows of training, and score all of them each
            passed += 3 * steps * budget["batch_size"] * tokens / profile.devices
            passed += budget["evaluations"] * min(examples, limit.get("dev", 1000)) * tokens
        return FIXED + 2 * size * passed / FLOPS[self.device]


@cache
def parameters(name: str) -> float:
    """Of a backbone, as its name says: 0.5B, 7B."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*([BbMm])\b", name)
    return float(found[1]) * (1e9 if found[2] in "Bb" else 1e6) if found else TINY


def spoken(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3.5 h, 12 d."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86400:.1f} d"
