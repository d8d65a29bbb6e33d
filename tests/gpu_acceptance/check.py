"""`make gpu-check`: what only a GPU can show, in one command that needs no network and ends within its budget.

    python -m tests.gpu_acceptance.check                                      # about 8 minutes on one GPU from 40 GB up
    python -m tests.gpu_acceptance.check --device cpu --shape tiny            # the same, small, in seconds: does it run?
    python -m tests.gpu_acceptance.check --only race,share                    # some of it
    python -m tests.gpu_acceptance.check --table results/gpu-check/gpu.json --docs docs/performance.md

Checks stand alone: one that fails is recorded with its reason, and the others go on; where the time ends, the last are
left out and say so. Results are written after each. Exit code 0: all held; 1: some did not; 2: there is no GPU.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

BUDGET = 510  # seconds
FOLDER = "results/gpu-check"


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu_acceptance.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    parser.add_argument("--shape", default="real", choices=("real", "tiny"), help="tiny: the whole of it, small")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS")
    parser.add_argument("--only", help="names of checks, separated by commas")
    parser.add_argument("--out", default=FOLDER, help=f"folder of gpu.json and gpu.md (default: {FOLDER})")
    parser.add_argument("--table", metavar="JSON", help="run nothing: the table of these results")
    parser.add_argument("--docs", metavar="FILE", help="write the table into this file, between its gpu markers")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = parse(words)
    if options.table:
        found = json.loads(Path(options.table).read_text(encoding="utf-8"))
    else:
        import torch

        if options.device.startswith("cuda") and not torch.cuda.is_available():
            print("gpu-check: no CUDA device here; --device cpu --shape tiny runs all of it small", file=sys.stderr)
            return 2
        from tests.gpu_acceptance.session import Session

        warnings.filterwarnings("ignore", category=UserWarning)
        names = options.only.split(",") if options.only else None
        found = Session(options.device, options.shape, options.budget, Path(options.out)).run(names)
    from tests.gpu_acceptance.markdown_table import markdown, put

    said = markdown(found)
    print(said)
    if options.docs:
        put(said, Path(options.docs))
    return 1 if any(check["state"] == "failed" for check in found["checks"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
