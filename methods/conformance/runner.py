"""Run the conformance checks on a method class with tiny random models of every architecture."""

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
    """Result of one check on all architectures; `reason` tells why it failed or does not apply."""

    check: str
    state: str
    reason: str = ""


def run_checks(method_class: "type[Method]", folder: Path) -> Iterator[CheckResult]:
    """Yield the result of every check on a class; tiny models are saved to `folder`. Raises UsageError with -O."""
    from methods.conformance.checks import CHECKS
    from methods.conformance.tiny_models import CONFIG_CLASSES, save_random_model
    from methods.core.backbone import Backbone

    if not __debug__:
        raise UsageError("python -O removes the assertions that proofs are made of; run without it")
    paths = {name: save_random_model(folder / name, name) for name in CONFIG_CLASSES}
    backbones = {name: Backbone.load(str(path)) for name, path in paths.items()}
    for name, check in CHECKS.items():
        outcomes = {}
        for architecture, backbone in backbones.items():
            outcomes[architecture] = state, _ = run_check(check, method_class, backbone)
            if state == FAILED:  # the backbone may be in any state
                backbones[architecture] = Backbone.load(str(paths[architecture]))
        yield CheckResult(name, *merge_outcomes(outcomes))


def run_check(check: Callable, method_class: "type[Method]", backbone: "Backbone") -> tuple[str, str]:
    """Run one check on one backbone and return its state and reason."""
    try:
        reason = check(method_class, backbone)
    except Exception as error:  # any exception of the method is a failure
        return FAILED, format_failure(error)
    finally:
        backbone.detach()
    return (NOT_APPLICABLE, reason) if reason else (PASSED, "")


def merge_outcomes(outcomes: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Merge the outcomes of all architectures into the worst state and a reason that names the architectures."""
    states = {state for state, _ in outcomes.values()}
    state = next(state for state in (FAILED, PASSED, NOT_APPLICABLE) if state in states)
    if state == PASSED:
        skipped = [f"not on {name}: {reason}" for name, (other, reason) in outcomes.items() if other == NOT_APPLICABLE]
        return state, "; ".join(skipped)
    named: dict[str, list[str]] = {}
    for name, (other, reason) in outcomes.items():
        if other == state:
            named.setdefault(reason, []).append(name)
    reasons = [
        reason if len(names) == len(outcomes) else f"{', '.join(names)}: {reason}" for reason, names in named.items()
    ]
    return state, "; ".join(reasons)


def format_failure(error: Exception) -> str:
    """One line: the error, and the line of the check that raised it."""
    message = " ".join(str(error).split())[:160]
    if not isinstance(error, AssertionError):
        message = f"{type(error).__name__}: {message}"
    lines = [
        frame.line
        for frame in extract_tb(error.__traceback__)
        if Path(frame.filename).stem == CHECKS_MODULE.split(".")[-1]
    ]
    return f"{message} <- {lines[-1]}".strip() if lines else message
