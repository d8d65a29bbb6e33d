"""Which tasks a reader may ask for: a role, a family, or both. Each set of tasks has one name, whoever asks for it."""

from collections.abc import Mapping

from benchmark.analysis.leaderboard import AVERAGE_NAMES
from benchmark.config.profile import Profile
from benchmark.grid import planner, specs

ANY_FAMILY = "any"
ALL_TASKS = "all tasks"
ROLE_TITLES = {"choice": AVERAGE_NAMES[0], "all": ALL_TASKS, "source": AVERAGE_NAMES[1], "target": AVERAGE_NAMES[2]}


def select_tasks(profile: Profile, role: str, family: str) -> tuple[str, ...]:
    """The profile's tasks of this role and family."""
    facts = {name: specs.get_task_spec(name) for name in profile.tasks}
    return tuple(
        name
        for name, fact in facts.items()
        if family in (ANY_FAMILY, fact["family"])
        and role in ("all", planner.get_task_role(profile, name), fact["form"])
    )


def list_families(profile: Profile) -> list[str]:
    return sorted({specs.get_task_spec(name)["family"] for name in profile.tasks})


def name_task_groups(profile: Profile) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(name -> its tasks, role/family -> name). A set of one task is called as the task; an empty one has no name."""
    names: dict[tuple[str, ...], str] = {}
    asked: dict[str, str] = {}
    for family in (ANY_FAMILY, *list_families(profile)):
        for role, title in ROLE_TITLES.items():
            found = select_tasks(profile, role, family)
            if not found:
                continue
            title = title if family == ANY_FAMILY else f"{'' if role == 'all' else f'{role} '}{family} tasks"
            asked[f"{role}/{family}"] = names.setdefault(found, found[0] if len(found) == 1 else title)
    groups = {name: found for found, name in names.items() if len(found) > 1 or name not in found}
    return groups, asked


def build_task_groups(profile: Profile) -> Mapping[str, tuple[str, ...]]:
    """The sets that need an average of their own: all but single tasks."""
    return name_task_groups(profile)[0]
