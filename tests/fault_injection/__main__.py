"""`python -m tests.fault_injection`: disturb a small grid in every way, resume it, and compare. `--short` is what the tests run."""

import argparse
import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from random import Random

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "offline",
}

import torch  # noqa: E402
from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.fault_injection import case  # noqa: E402
from tests.fault_injection import file_faults as files
from tests.fault_injection import method_faults as methods
from tests.fault_injection import process_faults as processes
from tests.fault_injection.harness import Ground, home

GIB = 2**30
# fault -> (how, times, times in short; 0: not in the short form)
FAULTS = {
    "kill -9 at a random moment": (processes.killed, 50, 1),
    "SIGTERM at a random moment": (lambda *a: processes.killed(*a, number=15), 5, 0),
    "Ctrl-C at a random moment": (lambda *a: processes.killed(*a, number=2), 5, 0),
    "two runs at once, one killed": (processes.two_at_once, 4, 0),
    "a worker, then its parent killed": (processes.lost_worker, 1, 0),
    "one of two that share a cell killed": (processes.lost_rank, 1, 0),
    "an actor of Ray vanishes": (processes.lost_actor, 1, 0),
    "disk full, by injection": (files.full_by_injection, 6, 1),
    "disk full, a small tmpfs": (files.full_disk, 3, 0),
    "folder read-only": (files.read_only, 1, 0),
    "result cut short": (files.damaged("results", files.cut), 4, 0),
    "result with a wrong bit": (files.damaged("results", files.flip), 8, 0),
    "predictions with a wrong bit": (files.damaged("predictions", files.flip), 3, 0),
    "predictions gone": (files.damaged("predictions", files.lose), 2, 0),
    "artefact cut short": (files.damaged("artefacts", files.cut), 2, 0),
    "artefact with a wrong bit": (files.damaged("artefacts", files.flip), 3, 1),
    "index with a wrong bit": (files.damaged("index", files.flip), 3, 0),
    "cache spoiled": (files.spoiled_cache, 2, 0),
    "clock set back by a day": (files.clock_back, 2, 0),
    "a method raises": (methods.faulty("Raises"), 1, 0),
    "a method returns NaN": (methods.faulty("NoNumber"), 1, 0),
    "a method has no room": (methods.faulty("NoRoom"), 1, 0),
    "a method leaks until memory is out": (methods.faulty("Leaks", limit=GIB), 1, 0),
    "a method hangs (--timeout)": (
        methods.faulty("Hangs", more=("--timeout", "8s", "--workers", "2", "--pack", "1")),
        1,
        0,
    ),
    "W&B breaks off": (methods.no_wandb, 3, 0),
}  # fmt: skip


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fault_injection", description=__doc__)
    asked.add_argument("--short", action="store_true")
    asked.add_argument("--only", metavar="TEXT", action="append", help="faults whose name has this in it")
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    place, say = home(), Console(width=120, highlight=False)
    try:
        return campaign(place, options, say)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def campaign(place: Path, options: argparse.Namespace, say: Console) -> int:
    begun = time.monotonic()
    ground = Ground(place, seeds=1 if options.short else 2)
    if not options.short:
        case.undisturbed(ground)  # fills the caches, so that the next one tells how long a grid takes
    right = case.undisturbed(ground)
    say.print(f"a grid of {right.cells} cells, undisturbed {right.seconds:.1f} s")
    table = Table("fault", "tried", "cells lost", "done twice", "verdict", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    bad = 0
    for name, (fault, times, short) in FAULTS.items():
        count = short if options.short else times
        if not count or (options.only and not any(text in name for text in options.only)):
            continue
        found = fault(ground, right, Random(f"{options.seed} {name}"), count)
        wrong = found.wrong or ("" if not (found.lost or found.twice) else "not as if nothing had happened")
        bad += bool(wrong)
        verdict = f"skipped: {found.skipped}" if found.skipped else wrong or "as if nothing had happened"
        numbers = ("-",) * 3 if found.skipped else tuple(map(str, found[:3]))
        table.add_row(name, *numbers, verdict)
        print(f"{time.monotonic() - begun:6.0f} s  {name}: {verdict}", file=sys.stderr, flush=True)
        if wrong:
            print(ground.said()[-3000:], file=sys.stderr, flush=True)
    say.print(table)
    say.print(f"{time.monotonic() - begun:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
