"""Where raw records come from: local original files, a script-free hub copy, or the embedded samples.

All three hand the same dicts to the task's `read`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks import network
from tasks.example import UsageError
from tasks.formats import Record, label_names

if TYPE_CHECKING:
    from datasets import DatasetDict

Parse = Callable[[str, str], Iterator[dict]]  # (text of a file, its name for messages) -> records
SUM = ".sha256"  # file in a written folder: of all others
INTACT: set[Path] = set()  # written folders that this process has looked at
RAW = "https://raw.githubusercontent.com"


def unread(text: str, where: str) -> Iterator[dict]:
    """The parse of a file of which only the place is asked: no records."""
    return iter(())


class File(NamedTuple):
    """Original files of one part: "train", "dev", "test", or "" for files that are only counted.

    Several paths belong together; several Files of one part are alternatives, the first that is there is read.
    A public "dev" set stands in for a missing train or test file; where nothing is missing it is not used.
    """

    part: str
    paths: tuple[str, ...]
    parse: Parse
    names: str = ""  # file that names the label ids
    note: str = ""  # why a file is only counted

    @property
    def title(self) -> str:
        return " + ".join(self.paths)


class Hub(NamedTuple):
    """A Hugging Face dataset that needs no script: id, config, pinned revision, part -> split, column -> key."""

    id: str
    config: str | None
    revision: str
    splits: dict[str, str]
    columns: dict[str, str] = {}


class GitHub(NamedTuple):
    """The canonical repository's raw files, by the names in the task's `files`, at a pinned commit."""

    repository: str
    commit: str
    folder: str


class Local:
    """The files of one task below a folder: `<folder>/<task>/<path>`."""

    def __init__(self, task: str, files: tuple[File, ...], folder: Path, name: str = "local") -> None:
        self.task, self.files, self.folder, self.name = task, files, Path(folder) / task, name

    @property
    def title(self) -> str:
        return self.name

    def parts(self) -> dict[str, File]:
        """The part names that can be read here, with the files that serve them."""
        found: dict[str, File] = {}
        for file in self.files:
            if file.part and file.part not in found and self.has(file):
                found[file.part] = file
        if not found:
            looked = ", ".join(file.title for file in self.files if file.part)
            raise UsageError(f"{self.task}: no records in {self.folder}; looked for {looked}")
        return found

    def has(self, file: File) -> bool:
        return all((self.folder / path).is_file() for path in file.paths)

    def stamp(self) -> tuple:
        """What identifies the content: it changes when a file does."""
        paths = [self.folder / path for file in self.files for path in (*file.paths, file.names) if path]
        facts = [(path.name, path.stat()) for path in paths if path.is_file()]
        return (str(self.folder), *((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts))

    def rows(self, file: File) -> Iterator[dict]:
        """Records with their label ids replaced by names, where the files come with a list of names."""
        listed = file.names and self.lists(file.names)
        names = label_names(self.text(file.names), f"{self.task}/{file.names}") if listed else {}
        for path in file.paths:
            for row in file.parse(self.text(path), f"{self.task}/{path}"):
                if names:
                    row["label"] = names.get(str(row["label"]), row["label"])
                yield row

    def lists(self, path: str) -> bool:
        return (self.folder / path).is_file()

    def text(self, path: str) -> str:
        # newline="": only LF ends a line here; universal newlines would also split at a lone CR
        try:
            with (self.folder / path).open(encoding="utf-8-sig", newline="") as file:
                return file.read()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(f"{self.task}/{path}:{line}: not UTF-8 (byte {error.start}); convert it first") from error
        except OSError as error:
            raise UsageError(f"{self.task}/{path}: cannot be read ({error.strerror})") from error


class Raw(Local):
    """The same files from their canonical repository: fetched on first use, then read from the cache."""

    def __init__(self, task: str, files: tuple[File, ...], hub: GitHub) -> None:
        super().__init__(task, files, Path(), "hub")
        self.folder = cache_folder() / "raw" / hub.repository / hub.commit / hub.folder
        self.hub = hub

    @property
    def title(self) -> str:
        return f"hub: https://github.com/{self.hub.repository} at {self.hub.commit}, {self.hub.folder}"

    def has(self, file: File) -> bool:
        return True  # the first alternative of a part is the canonical one

    def lists(self, path: str) -> bool:
        return True

    def stamp(self) -> tuple:
        return tuple(self.hub)

    def rows(self, file: File) -> Iterator[dict]:
        for path in (*file.paths, *filter(None, [file.names])):  # all of them, before the first record
            self.fetch(path)
        return super().rows(file)

    def fetch(self, path: str) -> Path:
        url = "/".join([raw_root(), self.hub.repository, self.hub.commit, self.hub.folder, path])
        return network.file(self.task, url, self.folder / path)


class Parquet:
    """A script-free dataset on the Hugging Face hub (or a folder of the same shape)."""

    def __init__(self, task: str, hub: Hub) -> None:
        self.task, self.hub = task, hub

    @property
    def title(self) -> str:
        config = f" ({self.hub.config})" if self.hub.config else ""
        return f"hub: https://huggingface.co/datasets/{self.hub.id}{config} at {self.hub.revision}"

    def parts(self) -> dict[str, File]:
        return {part: File(part, (split,), unread) for part, split in self.hub.splits.items()}

    def has(self, file: File) -> bool:
        return file.paths[0] in self.hub.splits.values()

    def stamp(self) -> tuple:
        return (self.hub.id, self.hub.config, self.hub.revision)

    @cached_property
    def tables(self) -> "DatasetDict":
        return network.dataset(self.task, self.hub.id, self.hub.config, self.hub.revision)

    def rows(self, file: File) -> Iterator[dict]:
        split, columns = file.paths[0], self.hub.columns
        if split not in self.tables:
            found = f"there are: {', '.join(self.tables)}"
            raise UsageError(f"{self.task}: no split {split!r} in data set {self.hub.id}; {found}")
        table = self.tables[split]
        # ids of a ClassLabel mean nothing outside their table (NLI orders differ): names only
        names = {key: feature.names for key, feature in table.features.items() if hasattr(feature, "names")}
        for number, row in enumerate(table, start=1):
            for key, values in names.items():
                row[key] = values[row[key]] if row[key] is not None and row[key] >= 0 else "-"
            values = {columns.get(key, key): value for key, value in row.items()}
            yield Record(values, f"{self.task}, {split} record {number} of {self.hub.id}")


def raw_root() -> str:
    """Where raw files of code repositories are, or a mirror of it."""
    return os.environ.get("ADAPTERBENCH_RAW", RAW).rstrip("/")


def cache_folder() -> Path:
    return Path(os.environ.get("ADAPTERBENCH_CACHE") or Path.home() / ".cache" / "adapterbench")


def intact(folder: Path) -> bool:
    """Whether a folder is there as it was written; looked at once."""
    if folder not in INTACT and (folder / SUM).is_file() and (folder / SUM).read_text() == content(folder):
        INTACT.add(folder)
    return folder in INTACT and folder.is_dir()


def content(folder: Path) -> str:
    """sha256 of the names and contents of the files of a folder."""
    found = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUM):
        found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


def sample_folder(task: str, home: Path | None = None) -> Path:
    """The folder with the embedded records of a task, written on first use, and again where it was damaged.

    Atomic: each process writes a private copy and renames it into place; whoever comes second throws its own away. What is
    damaged is replaced file by file, so that nobody who reads a whole one finds it gone.
    """
    from tasks import samples

    home = (home or cache_folder()) / f"samples-{samples.fingerprint()}"
    if intact(home / task):
        return home
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=f".{task}-"))
    try:
        samples.write(task, scratch)
        (scratch / task / SUM).write_text(content(scratch / task))
        with suppress(OSError):  # there is one already
            (scratch / task).rename(home / task)
        if not intact(home / task):
            mend(home / task, scratch / task)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return home


def mend(folder: Path, whole: Path) -> None:
    """Give a folder the files of a whole one, the list of their hashes last, and nothing else."""
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    for name in sorted(names, key=lambda name: name.name == SUM):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (whole / name).replace(folder / name)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder) not in names:
            path.unlink(missing_ok=True)


def open_source(
    task: str, files: tuple[File, ...], hub: Hub | GitHub | None, source: str, data_dir: str | Path | None
) -> Local | Parquet:
    """The records of a task; both kinds answer parts(), rows(file), stamp() and title."""
    match source:
        case "sample":
            from tasks import samples

            return Local(task, files, sample_folder(task), f"sample: generated, version {samples.fingerprint()}")
        case "local":
            if data_dir is None:
                raise UsageError(f"{task}: source=local needs data_dir, the folder with one sub-folder per task")
            if not Path(data_dir).is_dir():
                raise UsageError(f"{task}: data_dir {data_dir} is not a folder; it should hold one sub-folder per task")
            return Local(task, files, Path(data_dir), f"local: {Path(data_dir) / task}")
        case "hub" if hub is not None:
            return Raw(task, files, hub) if isinstance(hub, GitHub) else Parquet(task, hub)
    raise UsageError(f"{task}: no source {source!r}; there are: hub, local, sample")
