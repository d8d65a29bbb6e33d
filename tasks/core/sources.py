"""Sources of raw records: local original files, a hub data set without a loading script, or generated data.

All of them yield the same dicts to `Task.read_examples`.
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

RecordParser = Callable[[str, str], Iterator[dict]]  # (text of a file, file name for messages) -> records
CHECKSUM_FILE = ".sha256"  # file with the hash of all other files of its folder
VERIFIED_FOLDERS: set[Path] = set()  # folders whose checksum this process has verified
GITHUB_RAW_URL = "https://raw.githubusercontent.com"


def parse_nothing(text: str, where: str) -> Iterator[dict]:
    """Yield no records; the parser of a hub split, which is not read as text."""
    return iter(())


class File(NamedTuple):
    """Original files of one part: "train", "dev", "test", or "" for files that are only counted by `describe_task`.

    All `paths` are read one after the other. Several `File`s of one part are alternatives; the first that exists is
    read. A public "dev" set replaces a missing train or test file and is unused otherwise.
    """

    part: str
    paths: tuple[str, ...]
    parse: RecordParser
    label_names_file: str = ""  # file that maps label ids to names
    note: str = ""  # reason why a file is only counted

    @property
    def title(self) -> str:
        """All paths, for messages."""
        return " + ".join(self.paths)


class Hub(NamedTuple):
    """A Hugging Face data set without a loading script, at a pinned revision.

    splits: part -> split of the data set. columns: column -> key of the record, for columns that are renamed.
    """

    id: str
    config: str | None
    revision: str
    splits: dict[str, str]
    columns: dict[str, str] = {}


class GitHub(NamedTuple):
    """Raw files in `folder` of a GitHub repository at a pinned commit; the names are those of the task's `files`."""

    repository: str
    commit: str
    folder: str


class LocalSource:
    """The files of one task in a data folder: `<folder>/<task>/<path>`."""

    def __init__(self, task_name: str, files: tuple[File, ...], folder: Path, title: str = "local") -> None:
        self.task_name = task_name
        self.files = files
        self.folder = Path(folder) / task_name
        self.name = title

    @property
    def title(self) -> str:
        """Description of the source, for reports and messages."""
        return self.name

    def find_parts(self) -> dict[str, File]:
        """Return part -> its files, for all parts that exist. Raises UsageError if there is none."""
        parts: dict[str, File] = {}
        for file in self.files:
            if file.part and file.part not in parts and self.has_file(file):
                parts[file.part] = file
        if not parts:
            expected = ", ".join(file.title for file in self.files if file.part)
            raise UsageError(f"{self.task_name}: no records in {self.folder}; looked for {expected}")
        return parts

    def has_file(self, file: File) -> bool:
        """Return whether all paths of the file exist."""
        return all((self.folder / path).is_file() for path in file.paths)

    def get_content_key(self) -> tuple:
        """Return a key of the content, which changes when a file changes (size or modification time)."""
        paths = [self.folder / path for file in self.files for path in (*file.paths, file.label_names_file) if path]
        stats = [(path.name, path.stat()) for path in paths if path.is_file()]
        return (str(self.folder), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))

    def iter_records(self, file: File) -> Iterator[dict]:
        """Yield the records of a file; label ids are replaced by names if there is a file of label names."""
        names = {}
        if file.label_names_file and self.has_label_names(file.label_names_file):
            text = self.read_text(file.label_names_file)
            names = parse_label_names(text, f"{self.task_name}/{file.label_names_file}")
        for path in file.paths:
            for row in file.parse(self.read_text(path), f"{self.task_name}/{path}"):
                if names:
                    row["label"] = names.get(str(row["label"]), row["label"])
                yield row

    def has_label_names(self, path: str) -> bool:
        """Return whether the file of label names exists."""
        return (self.folder / path).is_file()

    def read_text(self, path: str) -> str:
        """Read a UTF-8 file, with or without byte order mark. Raises UsageError with file and line."""
        # newline="": only LF ends a line; universal newlines would also split at a lone CR
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
    """Raw files of a GitHub repository, downloaded on first use and then read from the cache."""

    def __init__(self, task_name: str, files: tuple[File, ...], hub: GitHub) -> None:
        super().__init__(task_name, files, Path(), "hub")
        self.folder = get_cache_folder() / "raw" / hub.repository / hub.commit / hub.folder
        self.hub = hub

    @property
    def title(self) -> str:
        """Description of the source with repository, commit and folder."""
        return f"hub: https://github.com/{self.hub.repository} at {self.hub.commit}, {self.hub.folder}"

    def has_file(self, file: File) -> bool:
        """Return True: the first alternative of a part is the file in the repository."""
        return True

    def has_label_names(self, path: str) -> bool:
        """Return True: the repository has all files that `files` names."""
        return True

    def get_content_key(self) -> tuple:
        """Return repository, commit and folder, which identify the content."""
        return tuple(self.hub)

    def iter_records(self, file: File) -> Iterator[dict]:
        """Download all files of the part, then yield their records."""
        for path in filter(None, (*file.paths, file.label_names_file)):
            self.fetch_file(path)
        return super().iter_records(file)

    def fetch_file(self, path: str) -> Path:
        """Download a file into the cache, unless it is there, and return its path."""
        url = "/".join([get_github_raw_url(), self.hub.repository, self.hub.commit, self.hub.folder, path])
        return download.fetch_file(self.task_name, url, self.folder / path)


class HubSource:
    """A data set on the Hugging Face hub without a loading script, or a local folder of the same structure."""

    def __init__(self, task_name: str, hub: Hub) -> None:
        self.task_name = task_name
        self.hub = hub

    @property
    def title(self) -> str:
        """Description of the source with id, config and revision."""
        config = f" ({self.hub.config})" if self.hub.config else ""
        return f"hub: https://huggingface.co/datasets/{self.hub.id}{config} at {self.hub.revision}"

    def find_parts(self) -> dict[str, File]:
        """Return part -> a File whose only path is the name of the split."""
        return {part: File(part, (split,), parse_nothing) for part, split in self.hub.splits.items()}

    def has_file(self, file: File) -> bool:
        """Return whether the data set declares this split."""
        return file.paths[0] in self.hub.splits.values()

    def get_content_key(self) -> tuple:
        """Return id, config and revision, which identify the content."""
        return (self.hub.id, self.hub.config, self.hub.revision)

    @cached_property
    def tables(self) -> "DatasetDict":
        """All splits, loaded (and downloaded if needed) on first use."""
        return download.load_hub_dataset(self.task_name, self.hub.id, self.hub.config, self.hub.revision)

    def iter_records(self, file: File) -> Iterator[dict]:
        """Yield the records of a split with renamed columns; class label ids are replaced by names ("-" if missing)."""
        split = file.paths[0]
        columns = self.hub.columns
        if split not in self.tables:
            available = ", ".join(self.tables)
            raise UsageError(f"{self.task_name}: no split {split!r} in data set {self.hub.id}; there are: {available}")
        table = self.tables[split]
        # The ids of a ClassLabel depend on the data set (the order of NLI labels differs), so only names are used.
        names = {key: feature.names for key, feature in table.features.items() if hasattr(feature, "names")}
        for number, row in enumerate(table, start=1):
            for key, values in names.items():
                row[key] = values[row[key]] if row[key] is not None and row[key] >= 0 else "-"
            values = {columns.get(key, key): value for key, value in row.items()}
            yield Record(values, f"{self.task_name}, {split} record {number} of {self.hub.id}")


def get_github_raw_url() -> str:
    """Return the base URL of raw GitHub files, or of the mirror that ADAPTERBENCH_RAW names."""
    return os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL).rstrip("/")


def get_cache_folder() -> Path:
    """Return the cache folder: ADAPTERBENCH_CACHE, or ~/.cache/adapterbench."""
    return Path(os.environ.get("ADAPTERBENCH_CACHE") or Path.home() / ".cache" / "adapterbench")


def is_intact(folder: Path) -> bool:
    """Return whether a folder exists and matches its checksum, which is verified once per process."""
    if (
        folder not in VERIFIED_FOLDERS
        and (folder / CHECKSUM_FILE).is_file()
        and (folder / CHECKSUM_FILE).read_text() == hash_folder(folder)
    ):
        VERIFIED_FOLDERS.add(folder)
    return folder in VERIFIED_FOLDERS and folder.is_dir()


def hash_folder(folder: Path) -> str:
    """Return the sha256 of names, sizes and contents of all files of a folder except CHECKSUM_FILE."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUM_FILE):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def write_synthetic_records(task_name: str, cache_root: Path | None = None) -> Path:
    """Write the generated records of a task on first use, repair them if damaged, and return their root folder.

    The write is atomic: each process writes a private copy and renames it; if the folder exists already, the copy is
    discarded. A damaged folder is repaired file by file, so that intact files stay available to concurrent readers.
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
        with suppress(OSError):  # the folder exists already
            (scratch / task_name).rename(cache_root / task_name)
        if not is_intact(cache_root / task_name):
            repair_folder(cache_root / task_name, scratch / task_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return cache_root


def repair_folder(folder: Path, intact_folder: Path) -> None:
    """Move the files of an intact folder into a damaged one, the checksum last, and delete all other files there."""
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
    """Open the source of a task's records. Raises UsageError if the source or its folder does not exist.

    Raises KeyError if `data_source` is "sample" and the task has no generator.
    """
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
                raise UsageError(
                    f"{task_name}: data_source=local needs data_dir, the folder with one subfolder per task"
                )
            if not Path(data_dir).is_dir():
                raise UsageError(
                    f"{task_name}: data_dir {data_dir} is not a folder; it should contain one subfolder per task"
                )
            return LocalSource(task_name, files, Path(data_dir), f"local: {Path(data_dir) / task_name}")
        case "hub" if hub is not None:
            return GitHubSource(task_name, files, hub) if isinstance(hub, GitHub) else HubSource(task_name, hub)
    raise UsageError(f"{task_name}: unknown data_source {data_source!r}; there are: hub, local, sample")


class TaskFolderSource(LocalSource):
    """The files of a custom task in its own folder: `<home>/<path>`."""

    def __init__(self, task_name: str, files: tuple[File, ...], home: Path | str) -> None:
        super().__init__(task_name, files, Path(home), f"own files: {home}")
        self.folder = Path(home)


def uses_task_folder(home: object, hub: object, data_source: str) -> bool:
    """Return whether a task reads its own folder.

    It does if it has one, unless `data_source` is "hub" and the task has a hub data set.
    """
    return bool(home) and not (data_source == "hub" and hub)
