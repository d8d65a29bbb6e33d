"""Where a task's records are: a task of one's own may say it itself, so that it stands beside tasks from elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.example import UsageError
from tasks.source import File, GitHub, Hub, Local, Parquet, open_source

if TYPE_CHECKING:
    from tasks.base import Task


class Own(Local):
    """The files of a task in its own folder: `<home>/<path>`."""

    def __init__(self, task: str, files: tuple[File, ...], home: Path | str) -> None:
        super().__init__(task, files, Path(home), f"own files: {home}")
        self.folder = Path(home)


def at_home(home: object, hub: object, source: str) -> bool:
    """Whether a task reads its own folder: always where it has one, unless a hub is asked for and it has that too."""
    return bool(home) and not (source == "hub" and hub)


def open_task(task: "Task") -> Local | Parquet:
    """The records of a task, from its own folder or from where the profile says."""
    hub: Hub | GitHub | None = task.hub
    if task.home and at_home(task.home, hub, task.source):
        return Own(task.name, task.files, task.home)
    if task.source == "hub" and hub is None:
        raise UsageError(f"{task.name}: it names no hub data set; use --source local, or give it a `home` of its own")
    try:
        return open_source(task.name, task.files, hub, task.source, task.data_dir)
    except KeyError as error:  # only the tasks of the suite have generators
        advice = (
            "--source hub" if hub else "--source local with --data-dir, or give it a `home`, the folder of its files"
        )
        raise UsageError(f"{task.name}: no sample records are generated for it; use {advice}") from error
