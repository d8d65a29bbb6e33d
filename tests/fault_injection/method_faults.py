"""Methods that fail in every way while the others go on, and a W&B that does."""

import resource
from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmark.results.store import ResultStore
from tests.fault_injection.case import Case, Undisturbed, Verdict
from tests.fault_injection.harness import METHODS, Ground

FAULTY = {name: f"faulty:{name}" for name in ("Raises", "NoNumber", "NoRoom", "Leaks", "Hangs")}


def faulty(name: str, *, limit: int = 0, more: tuple[str, ...] = ()) -> Callable[..., Verdict]:
    """A method fails while the others go on; mended, its cells are done by `retry`."""

    def fault(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
        case, methods = Case(ground, right), (METHODS[0], FAULTY[name], *METHODS[1:])

        def before() -> None:
            if limit:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + limit, resource.RLIM_INFINITY))

        ground.fault.touch()
        try:
            code = ground.run(case.folder, *more, methods=methods, before=before)
        finally:
            ground.fault.unlink()
        case.tried = 1
        case.expect(f"exit code {code} with a failing method", code == 1)
        case.note()
        states = {r.cell.method: "failed" for r in ResultStore(case.folder).load_results() if not r.is_done}
        case.expect(f"failed: {states}", FAULTY[name] in states)
        code = ground.run(case.folder, verb="retry", methods=methods)
        case.expect(f"retry ends with {code}", code == 0)
        case.note()
        case.expect("its cells are not done", sum("faulty" in cell for cell in case.kept) == 2 * ground.seeds)
        return case.resumed()

    return fault


def no_wandb(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """W&B breaks off at the n-th run: the results are whole, and a second report writes each run once."""
    import wandb

    from benchmark.reporting.wandb import export

    case = Case(ground, right)
    targets = right.cells + 1

    class Run:
        def __init__(self, folder: Path, name: str, broken: bool) -> None:
            self.summary, self.broken = {}, broken
            (folder / "wandb" / f"offline-run-20260101_000000-{name}").mkdir(parents=True, exist_ok=True)

        def log(self, *_: object, **__: object) -> None: ...

        def finish(self) -> None:
            if self.broken:
                raise wandb.errors.CommError("network is unreachable")

    def breaking(most: int) -> Callable[[], None]:
        def patch() -> None:
            count = iter(range(10**6))
            export.start_run = lambda folder, mode, **named: Run(folder, named["id"], next(count) >= most)

        return patch

    ground.said()
    whole = 0  # runs that earlier tries wrote to their end, and that are not written again
    for place in sorted(draw.sample(range(targets), times)):
        code = ground.run(case.folder, "--wandb", "offline", before=breaking(place - whole))
        whole = place
        case.tried += 1
        case.expect(f"exit code {code}", code == 1)
        said = ground.said()
        case.expect("not said what to do", "the results are complete" in said and "Traceback" not in said)
        case.note()
    code = ground.run(case.folder, "--wandb", "offline", before=breaking(10**6))
    case.expect(f"exit code {code} when W&B is back", code == 0)
    case.expect("runs twice", len(list(case.folder.glob("wandb/offline-run-*"))) == targets)
    return case.resumed()
