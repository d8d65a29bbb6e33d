"""`make bench`: the suite against a naive peer, on one machine in one run. Figures to docs/bench, tables to docs.

python -m tests.performance                     all parts but `demo`, under 15 minutes on two free cores
python -m tests.performance --quick             a small form of each, about 3 minutes; nothing is written to docs
python -m tests.performance few-shot scoring    these parts only; the others keep what was measured before
python -m tests.performance demo                the demo grid with every method: minutes of its own
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread in a process, on both sides
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from benchmark.system.environment import collect_environment, get_installed_version
from benchmark.system.hardware import count_cpu_cores  # noqa: E402
from benchmark.system.resources import get_timestamp  # noqa: E402
from tasks.core.types import UsageError  # noqa: E402
from tests.performance import document  # noqa: E402
from tests.performance.experiments import BACKBONES, KINDS, QUICK, Options, Steps, every
from tests.performance.targets import ORIGINAL  # noqa: E402


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m tests.performance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(KINDS)}")
    found.add_argument("--quick", action="store_true", help="the embedded backbone and few cells")
    found.add_argument("--long", action="store_true", help="more of everything, without a limit of time")
    found.add_argument("--minutes", type=float, default=13.5, help="begin no part after so many")
    found.add_argument("--out", type=Path, help="folder for figures and page in place of docs/")
    found.add_argument("--backbones", type=lambda text: tuple(text.split(",")), help=f"of {', '.join(BACKBONES)}")
    found.add_argument("--data-dir", help="folder of original files, for whole public test sets")
    found.add_argument("--tasks", type=lambda text: tuple(text.split(",")), default=Options.tasks, help="few-shot ones")
    found.add_argument("--seeds", type=int, default=4, help="of the suite's few-shot cells")
    found.add_argument("--naive-seeds", type=int, default=1, help="of the peer's: a ratio is per cell")
    found.add_argument("--steps", type=int, default=Options.steps, help="of a few-shot cell")
    found.add_argument("--limit-test", type=int, metavar="N", help="score at most N test examples of a task")
    found.add_argument(
        "--packs", type=lambda text: tuple(map(int, text.split(","))), default=Options.packs, help="sizes"
    )
    found.add_argument("--cells", type=lambda text: tuple(map(int, text.split(","))), default=Options.cells,
                       help="of the simulated folders: 10000,100000")  # fmt: skip
    return found


def machine() -> dict:
    """Where this runs, without its name, and how busy it was before."""
    more = {name: get_installed_version(name) for name in ("accelerate", "safetensors")}
    environment = collect_environment("cpu")
    packages = {key: value for key, value in (dict(environment.packages) | more).items() if value}
    figures = vars(environment) | {"dirty": environment.has_uncommitted_changes}
    return figures | {"packages": packages, "cores": count_cpu_cores(), "load": os.getloadavg()[0]}


def main() -> int:
    options = parser().parse_args()
    if unknown := set(options.parts) - set(KINDS):
        raise UsageError(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(KINDS)}")
    say, failed = Console(highlight=False), 0
    docs = options.out or (Path(tempfile.mkdtemp(prefix="bench-")) if options.quick else document.DOCS)
    prepare(docs)
    where, begun = machine(), perf_counter()
    if where["load"] > 0.5:
        say.print(f"other work runs here (load {where['load']:.1f}): ratios will do, seconds will not", style="yellow")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        given = Options(
            Path(scratch), options.quick, options.long, options.data_dir, options.seeds, options.naive_seeds, options.steps,
            options.packs, options.cells, limit_test=options.limit_test, tasks=options.tasks,
        )  # fmt: skip
        backbones = options.backbones or (BACKBONES[1:] if options.quick else BACKBONES)
        wanted = options.parts or (QUICK if options.quick else KINDS[:-1])
        end = ORIGINAL if options.data_dir else ""
        todo = {name + end: run for name, run in every(given, backbones).items() if name.partition(" ")[0] in wanted}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=say, transient=True) as progress:
            bar = progress.add_task("", total=len(todo))
            for name, run in todo.items():
                progress.update(bar, description=name)
                if perf_counter() - begun > 60 * options.minutes and not options.long:
                    say.print(
                        f"{name} is left out after {options.minutes:g} min; `python -m tests.performance {name.split()[0]}`"
                    )
                    continue
                failed += not measured(name, run, docs, where, options, say)
                progress.advance(bar)
    say.print(
        f"{(perf_counter() - begun) / 60:.1f} min, {failed} parts failed; {docs / 'performance.md'}", style="bold"
    )
    return 1 if failed else 0


def prepare(docs: Path) -> None:
    """A page to write to: elsewhere than in docs/, a copy."""
    (docs / "bench").mkdir(parents=True, exist_ok=True)
    if not (docs / "performance.md").is_file():
        (docs / "performance.md").write_text((document.DOCS / "performance.md").read_text())


def measured(
    name: str, run: Callable[[], Steps], docs: Path, where: dict, options: argparse.Namespace, say: Console
) -> bool:
    """Run a part, keeping its figures and the page after every step. -> whether it came to its end."""
    form = "quick" if options.quick else "long" if options.long else "default"
    begun = perf_counter()
    try:
        for said, figures in run():
            say.print(f"{time.strftime('%H:%M:%S')}  {said}")
            kept = {
                "machine": where | {"load": where["load"]},
                "form": form,
                "finished": get_timestamp(),
                "figures": figures,
            }
            document.save(docs / "bench", name, kept | {"seconds": round(perf_counter() - begun, 1)})
        document.update(docs / "performance.md", docs / "bench")
    except Exception as error:  # the other parts still count
        say.print(f"{name} failed: {type(error).__name__}: {error}", style="red", markup=False)
        say.print(traceback.format_exc(), style="dim", markup=False)
        return False
    return True


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit, so that the processes it started end too
try:
    sys.exit(main())
except UsageError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("interrupted; figures measured so far are kept", file=sys.stderr)
    sys.exit(130)
