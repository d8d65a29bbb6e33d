"""Which tasks a reader may ask for: a role, a family, or both. Each set of tasks has one name, whoever asks for it."""

from collections.abc import Mapping

from benchmark import catalogue, grid
from benchmark.profile import Profile
from benchmark.table import AVERAGES

ANY = "any"
EVERY = "all tasks"
ROLES = {"choice": AVERAGES[0], "all": EVERY, "source": AVERAGES[1], "target": AVERAGES[2]}


def members(profile: Profile, role: str, family: str) -> tuple[str, ...]:
    """The profile's tasks of this role and family."""
    facts = {name: catalogue.task(name) for name in profile.tasks}
    return tuple(
        name
        for name, fact in facts.items()
        if family in (ANY, fact["family"]) and role in ("all", grid.role(profile, name), fact["form"])
    )


def families(profile: Profile) -> list[str]:
    return sorted({catalogue.task(name)["family"] for name in profile.tasks})


def named(profile: Profile) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(name -> its tasks, role/family -> name). A set of one task is called as the task; an empty one has no name."""
    names: dict[tuple[str, ...], str] = {}
    asked: dict[str, str] = {}
    for family in (ANY, *families(profile)):
        for role, title in ROLES.items():
            found = members(profile, role, family)
            if not found:
                continue
            title = title if family == ANY else f"{'' if role == 'all' else f'{role} '}{family} tasks"
            asked[f"{role}/{family}"] = names.setdefault(found, found[0] if len(found) == 1 else title)
    groups = {name: found for found, name in names.items() if len(found) > 1 or name not in found}
    return groups, asked


def averages(profile: Profile) -> Mapping[str, tuple[str, ...]]:
    """The sets that need an average of their own: all but single tasks."""
    return named(profile)[0]
