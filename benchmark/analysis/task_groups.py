"""Task groups by role, family, or both. Equal sets of tasks share one name."""

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
        if family in (ANY_FAMILY, fact.family) and role in ("all", planner.get_task_role(profile, name), fact.form)
    )


def list_families(profile: Profile) -> list[str]:
    """Sorted task families of the profile."""
    return sorted({specs.get_task_spec(name).family for name in profile.tasks})


def name_task_groups(profile: Profile) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return (group name -> its tasks, "role/family" -> group name).

    A group of one task has the name of the task; empty groups are omitted.
    """
    names: dict[tuple[str, ...], str] = {}
    name_by_selection: dict[str, str] = {}
    for family in (ANY_FAMILY, *list_families(profile)):
        for role, title in ROLE_TITLES.items():
            tasks = select_tasks(profile, role, family)
            if not tasks:
                continue
            title = title if family == ANY_FAMILY else f"{'' if role == 'all' else f'{role} '}{family} tasks"
            name_by_selection[f"{role}/{family}"] = names.setdefault(tasks, tasks[0] if len(tasks) == 1 else title)
    groups = {name: tasks for tasks, name in names.items() if len(tasks) > 1 or name not in tasks}
    return groups, name_by_selection


def build_task_groups(profile: Profile) -> Mapping[str, tuple[str, ...]]:
    """Groups of more than one task, which get an average in the leaderboard."""
    return name_task_groups(profile)[0]
