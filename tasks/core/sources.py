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

from tasks.core import download
from tasks.core.formats import Record, parse_label_names
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from datasets import DatasetDict

RecordParser = Callable[[str, str], Iterator[dict]]  # (text of a file, its name for messages) -> records
CHECKSUM_FILE = ".sha256"  # file in a written folder: of all others
VERIFIED_FOLDERS: set[Path] = set()  # written folders that this process has looked at
GITHUB_RAW_URL = "https://raw.githubusercontent.com"


def parse_nothing(text: str, where: str) -> Iterator[dict]:
    """The parse of a file of which only the place is asked: no records."""
    return iter(())


class File(NamedTuple):
    """Original files of one part: "train", "dev", "test", or "" for files that are only counted.

    Several paths belong together; several Files of one part are alternatives, the first that is there is read.
    A public "dev" set stands in for a missing train or test file; where nothing is missing it is not used.
    """

    part: str
    paths: tuple[str, ...]
    parse: RecordParser
    label_names_file: str = ""  # file that names the label ids
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


class LocalSource:
    """The files of one task below a folder: `<folder>/<task>/<path>`."""

    def __init__(self, task_name: str, files: tuple[File, ...], folder: Path, title: str = "local") -> None:
        self.task_name, self.files, self.folder, self.name = task_name, files, Path(folder) / task_name, title

    @property
    def title(self) -> str:
        return self.name

    def find_parts(self) -> dict[str, File]:
        """The part names that can be read here, with the files that serve them."""
        found: dict[str, File] = {}
        for file in self.files:
            if file.part and file.part not in found and self.has_file(file):
                found[file.part] = file
        if not found:
            looked = ", ".join(file.title for file in self.files if file.part)
            raise UsageError(f"{self.task_name}: no records in {self.folder}; looked for {looked}")
        return found

    def has_file(self, file: File) -> bool:
        return all((self.folder / path).is_file() for path in file.paths)

    def get_content_key(self) -> tuple:
        """What identifies the content: it changes when a file does."""
        paths = [self.folder / path for file in self.files for path in (*file.paths, file.label_names_file) if path]
        facts = [(path.name, path.stat()) for path in paths if path.is_file()]
        return (str(self.folder), *((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts))

    def iter_records(self, file: File) -> Iterator[dict]:
        """Records with their label ids replaced by names, where the files come with a list of names."""
        listed = file.label_names_file and self.has_label_names(file.label_names_file)
        names = (
            parse_label_names(self.read_text(file.label_names_file), f"{self.task_name}/{file.label_names_file}")
            if listed
            else {}
        )
        for path in file.paths:
            for row in file.parse(self.read_text(path), f"{self.task_name}/{path}"):
                if names:
                    row["label"] = names.get(str(row["label"]), row["label"])
                yield row

    def has_label_names(self, path: str) -> bool:
        return (self.folder / path).is_file()

    def read_text(self, path: str) -> str:
        # newline="": only LF ends a line here; universal newlines would also split at a lone CR
        try:
            with (self.folder / path).open(encoding="utf-8-sig", newline="") as file:
                return file.read()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(
                f"{self.task_name}/{path}:{line}: not UTF-8 (byte {error.start}); convert it first"
            ) from error
        except OSError as error:
            raise UsageError(f"{self.task_name}/{path}: cannot be read ({error.strerror})") from error


class GitHubSource(LocalSource):
    """The same files from their canonical repository: fetched on first use, then read from the cache."""

    def __init__(self, task_name: str, files: tuple[File, ...], hub: GitHub) -> None:
        super().__init__(task_name, files, Path(), "hub")
        self.folder = get_cache_folder() / "raw" / hub.repository / hub.commit / hub.folder
        self.hub = hub

    @property
    def title(self) -> str:
        return f"hub: https://github.com/{self.hub.repository} at {self.hub.commit}, {self.hub.folder}"

    def has_file(self, file: File) -> bool:
        return True  # the first alternative of a part is the canonical one

    def has_label_names(self, path: str) -> bool:
        return True

    def get_content_key(self) -> tuple:
        return tuple(self.hub)

    def iter_records(self, file: File) -> Iterator[dict]:
        for path in (*file.paths, *filter(None, [file.label_names_file])):  # all of them, before the first record
            self.fetch_file(path)
        return super().iter_records(file)

    def fetch_file(self, path: str) -> Path:
        url = "/".join([get_github_raw_url(), self.hub.repository, self.hub.commit, self.hub.folder, path])
        return download.fetch_file(self.task_name, url, self.folder / path)


class HubSource:
    """A script-free dataset on the Hugging Face hub (or a folder of the same shape)."""

    def __init__(self, task_name: str, hub: Hub) -> None:
        self.task_name, self.hub = task_name, hub

    @property
    def title(self) -> str:
        config = f" ({self.hub.config})" if self.hub.config else ""
        return f"hub: https://huggingface.co/datasets/{self.hub.id}{config} at {self.hub.revision}"

    def find_parts(self) -> dict[str, File]:
        return {part: File(part, (split,), parse_nothing) for part, split in self.hub.splits.items()}

    def has_file(self, file: File) -> bool:
        return file.paths[0] in self.hub.splits.values()

    def get_content_key(self) -> tuple:
        return (self.hub.id, self.hub.config, self.hub.revision)

    @cached_property
    def tables(self) -> "DatasetDict":
        return download.load_hub_dataset(self.task_name, self.hub.id, self.hub.config, self.hub.revision)

    def iter_records(self, file: File) -> Iterator[dict]:
        split, columns = file.paths[0], self.hub.columns
        if split not in self.tables:
            found = f"there are: {', '.join(self.tables)}"
            raise UsageError(f"{self.task_name}: no split {split!r} in data set {self.hub.id}; {found}")
        table = self.tables[split]
        # ids of a ClassLabel mean nothing outside their table (NLI orders differ): names only
        names = {key: feature.names for key, feature in table.features.items() if hasattr(feature, "names")}
        for number, row in enumerate(table, start=1):
            for key, values in names.items():
                row[key] = values[row[key]] if row[key] is not None and row[key] >= 0 else "-"
            values = {columns.get(key, key): value for key, value in row.items()}
            yield Record(values, f"{self.task_name}, {split} record {number} of {self.hub.id}")


def get_github_raw_url() -> str:
    """Where raw files of code repositories are, or a mirror of it."""
    return os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL).rstrip("/")


def get_cache_folder() -> Path:
    return Path(os.environ.get("ADAPTERBENCH_CACHE") or Path.home() / ".cache" / "adapterbench")


def is_intact(folder: Path) -> bool:
    """Whether a folder is there as it was written; looked at once."""
    if (
        folder not in VERIFIED_FOLDERS
        and (folder / CHECKSUM_FILE).is_file()
        and (folder / CHECKSUM_FILE).read_text() == hash_folder(folder)
    ):
        VERIFIED_FOLDERS.add(folder)
    return folder in VERIFIED_FOLDERS and folder.is_dir()


def hash_folder(folder: Path) -> str:
    """sha256 of the names and contents of the files of a folder."""
    found = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE):
        found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


def write_synthetic_records(task_name: str, cache_root: Path | None = None) -> Path:
    """The folder with the embedded records of a task, written on first use, and again where it was damaged.

    Atomic: each process writes a private copy and renames it into place; whoever comes second throws its own away. What is
    damaged is replaced file by file, so that nobody who reads a whole one finds it gone.
    """
    from tasks.synthetic import generators

    cache_root = (cache_root or get_cache_folder()) / f"samples-{generators.hash_generators()}"
    if is_intact(cache_root / task_name):
        return cache_root
    cache_root.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=cache_root, prefix=f".{task_name}-"))
    try:
        generators.write_task_files(task_name, scratch)
        (scratch / task_name / CHECKSUM_FILE).write_text(hash_folder(scratch / task_name))
        with suppress(OSError):  # there is one already
            (scratch / task_name).rename(cache_root / task_name)
        if not is_intact(cache_root / task_name):
            repair_folder(cache_root / task_name, scratch / task_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return cache_root


def repair_folder(folder: Path, intact_folder: Path) -> None:
    """Give a folder the files of a whole one, the list of their hashes last, and nothing else."""
    names = [path.relative_to(intact_folder) for path in intact_folder.rglob("*") if path.is_file()]
    for name in sorted(names, key=lambda name: name.name == CHECKSUM_FILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (intact_folder / name).replace(folder / name)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder) not in names:
            path.unlink(missing_ok=True)


def open_record_source(
    task_name: str, files: tuple[File, ...], hub: Hub | GitHub | None, data_source: str, data_dir: str | Path | None
) -> LocalSource | HubSource:
    """The records of a task; both kinds answer parts(), rows(file), stamp() and title."""
    match data_source:
        case "sample":
            from tasks.synthetic import generators

            return LocalSource(
                task_name,
                files,
                write_synthetic_records(task_name),
                f"sample: generated, version {generators.hash_generators()}",
            )
        case "local":
            if data_dir is None:
                raise UsageError(f"{task_name}: source=local needs data_dir, the folder with one sub-folder per task")
            if not Path(data_dir).is_dir():
                raise UsageError(
                    f"{task_name}: data_dir {data_dir} is not a folder; it should hold one sub-folder per task"
                )
            return LocalSource(task_name, files, Path(data_dir), f"local: {Path(data_dir) / task_name}")
        case "hub" if hub is not None:
            return GitHubSource(task_name, files, hub) if isinstance(hub, GitHub) else HubSource(task_name, hub)
    raise UsageError(f"{task_name}: no source {data_source!r}; there are: hub, local, sample")


class TaskFolderSource(LocalSource):
    """The files of a task in its own folder: `<home>/<path>`."""

    def __init__(self, task_name: str, files: tuple[File, ...], home: Path | str) -> None:
        super().__init__(task_name, files, Path(home), f"own files: {home}")
        self.folder = Path(home)


def uses_task_folder(home: object, hub: object, data_source: str) -> bool:
    """Whether a task reads its own folder: always where it has one, unless a hub is asked for and it has that too."""
    return bool(home) and not (data_source == "hub" and hub)
