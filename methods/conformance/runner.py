"""TODO."""

from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, NamedTuple

from tasks.core.types import UsageError

if TYPE_CHECKING:
    from methods.base import Method
    from methods.core.backbone import Backbone


PASSED = "holds"


NOT_APPLICABLE = "does not apply"


FAILED = "fails"


CHECKS_MODULE = "methods.conformance.checks"


class CheckResult(NamedTuple):
    """What came of one proof, on all architectures; the reason why it failed or does not apply."""

    check: str
    state: str
    reason: str = ""


def run_checks(method_class: "type[Method]", folder: Path) -> Iterator[CheckResult]:
    """Every proof of the kit on a class, on tiny models that are written into the folder."""
    from methods.conformance.checks import CHECKS
    from methods.conformance.tiny_models import CONFIG_CLASSES, save_random_model
    from methods.core.backbone import Backbone

    if not __debug__:
        raise UsageError("python -O removes the assertions that proofs are made of; run without it")
    places = {name: save_random_model(folder / name, name) for name in CONFIG_CLASSES}
    loaded = {name: Backbone.load(str(place)) for name, place in places.items()}
    for name, proof in CHECKS.items():
        found = {}
        for architecture, backbone in loaded.items():
            found[architecture] = state, _ = run_check(proof, method_class, backbone)
            if state == FAILED:  # it may have left anything behind
                loaded[architecture] = Backbone.load(str(places[architecture]))
        yield CheckResult(name, *merge_outcomes(found))


def run_check(check: Callable, method_class: "type[Method]", backbone: "Backbone") -> tuple[str, str]:
    try:
        reason = check(method_class, backbone)
    except Exception as error:  # whatever a class raises is the verdict on it
        return FAILED, format_failure(error)
    finally:
        backbone.detach()
    return (NOT_APPLICABLE, reason) if reason else (PASSED, "")


def merge_outcomes(outcomes: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """One verdict from those of all architectures: the worst, and where it is not that of all, on which."""
    states = {state for state, _ in outcomes.values()}
    state = next(state for state in (FAILED, PASSED, NOT_APPLICABLE) if state in states)
    if state == PASSED:
        blank = [f"not on {name}: {reason}" for name, (own, reason) in outcomes.items() if own == NOT_APPLICABLE]
        return state, "; ".join(blank)
    named: dict[str, list[str]] = {}
    for name, (own, reason) in outcomes.items():
        if own == state:
            named.setdefault(reason, []).append(name)
    said = [reason if len(at) == len(outcomes) else f"{', '.join(at)}: {reason}" for reason, at in named.items()]
    return state, "; ".join(said)


def format_failure(error: Exception) -> str:
    """What was raised, and the line of the proof that asked."""
    said = " ".join(str(error).split())[:160]
    if not isinstance(error, AssertionError):
        said = f"{type(error).__name__}: {said}"
    lines = [
        frame.line
        for frame in extract_tb(error.__traceback__)
        if Path(frame.filename).stem == CHECKS_MODULE.split(".")[-1]
    ]
    return f"{said} <- {lines[-1]}".strip() if lines else said
