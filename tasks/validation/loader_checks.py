"""Checks of a task's loader for common faults in files, records and splits.

Each check yields one finding per fault with the problem, its count and its first location. The checks of answers,
prompts and label words are in `answer_checks`.
"""

from collections import Counter
from collections.abc import Iterator

from tasks.base import Task
from tasks.core.sources import GitHubSource, LocalSource
from tasks.core.splits import choose_train_and_test, find_leaks
from tasks.core.types import Example, UsageError
from tasks.validation.answer_checks import ANSWER_CHECKS
from tasks.validation.findings import (
    FAILED,
    PASSED,
    WARNING,
    Finding,
    LoadedRecords,
    get_truncatable_text,
    make_finding,
)

DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt")
BYTE_ORDER_MARK = "\ufeff"


def check_loader(task: Task) -> Iterator[Finding]:
    """Run all checks on a task that has a tokenizer; an exception of its loader becomes a FAILED finding."""
    try:
        task.prepare_data()
        yield from check_raw_files(task)
        records = read_for_checks(task)
    except Exception as error:  # a custom loader may raise anything
        message = str(error)
        if not isinstance(error, UsageError):
            message = f"{task.record_location}: {type(error).__name__}: {message}"
        yield Finding("records", FAILED, " ".join(message.split())[:300])
        return
    rows = (f"{task.report['rows'][part]:,} {part}" for part in records.examples_by_part)
    splits = (f"{count:,} {name}" for name, count in task.report["splits"].items())
    yield Finding("records", PASSED, f"{', '.join(rows)}; in use: {', '.join(splits)}")
    for check in (
        check_dropped_records,
        check_duplicates,
        check_leaks,
        check_quoting,
        check_empty_texts,
        *ANSWER_CHECKS,
    ):
        yield from check(records)


def read_for_checks(task: Task) -> LoadedRecords:
    """Read the records once to get their locations, and once as a run does."""
    examples_by_part = {}
    dropped_locations: dict[tuple[str, str], list[str]] = {}

    def record_dropped(raw_part: str, reason: str, count: int = 1) -> None:
        if count:
            dropped_locations.setdefault((raw_part, reason), []).extend([task.record_location] * count)

    for part in dict.fromkeys(choose_train_and_test(task.record_source.find_parts())):
        task.count_dropped = record_dropped  # type: ignore[method-assign]  # of this object, during this reading only
        examples_by_part[part] = [(task.record_location, example) for example in task.read_examples(part)]
        del task.count_dropped
    task.setup()
    pool, _ = task.load_pool()
    location_by_uid: dict[str, str] = {}
    for located_examples in examples_by_part.values():
        for location, example in located_examples:
            location_by_uid.setdefault(example.uid, location)
    train_examples = [*pool["train"], *pool["dev"]]
    return LoadedRecords(task, examples_by_part, location_by_uid, dropped_locations, train_examples, pool["test"])


# -------------------------------------------------------------------- Files


def check_raw_files(task: Task) -> Iterator[Finding]:
    """Check byte order marks and line ends of local files."""
    if not isinstance(task.record_source, LocalSource) or isinstance(task.record_source, GitHubSource):
        return
    files_with_mark: list[str] = []
    inner_marks: list[str] = []
    lone_returns: list[str] = []
    line_ends: Counter[str] = Counter()
    for file in task.record_source.find_parts().values():
        for path in file.paths:
            text = (task.record_source.folder / path).read_bytes().decode("utf-8", "replace")
            if text.startswith(BYTE_ORDER_MARK):
                files_with_mark.append(path)
            if (position := text.find(BYTE_ORDER_MARK, 1)) > 0:
                inner_marks.append(f"{path}:{count_lines(text, position)}")
            num_crlf = text.count("\r\n")
            line_ends.update({"CRLF": num_crlf, "LF": text.count("\n") - num_crlf})
            text = text.replace("\r\n", "\n")
            if (position := text.find("\r")) >= 0:
                lone_returns.append(f"{path}:{count_lines(text, position)}")
    problem = "files have one inside (concatenated files?); it is removed"
    passed_message = f"at the start of {', '.join(files_with_mark)}; it is removed" if files_with_mark else "none"
    yield make_finding("byte order mark", inner_marks, problem, passed_message, WARNING)
    used = [name for name, count in line_ends.items() if count]
    problem = "files have a CR that does not end a line; a parser may split there"
    passed_message = f"{' and '.join(used) or 'one line'}; records end at LF, and a CR before it is removed"
    yield make_finding("line ends", lone_returns, problem, passed_message, WARNING)


def count_lines(text: str, position: int) -> int:
    """Return the line number, from 1, of a position in a text."""
    return text.count("\n", 0, position) + 1


def iter_delimited_texts(records: LoadedRecords) -> Iterator[tuple[str, str]]:
    """Yield (location, main text) of the examples that come from files with columns."""
    if isinstance(records.task.record_source, LocalSource):
        files = records.task.record_source.find_parts()
        for part, rows in records.examples_by_part.items():
            if all(path.endswith(DELIMITED_SUFFIXES) for path in files[part].paths):
                yield from ((location, get_truncatable_text(example)) for location, example in rows)


def check_quoting(records: LoadedRecords) -> Iterator[Finding]:
    """Check for faults of quoting: unclosed quotes, quotes kept as text, carriage returns and damaged characters."""
    rows = list(iter_delimited_texts(records))
    multi_line = [location for location, text in rows if "\n" in text]
    multi_column = [location for location, text in rows if "\n" in text and "\t" in text]
    problem = "texts span several lines; probably an unclosed quote"
    passed_message = "no text spans several lines"
    if multi_column:
        yield make_finding("quoting", multi_column, f"{problem}, which includes columns too", passed_message)
    else:
        yield make_finding("quoting", multi_line, problem, passed_message, WARNING)
    quoted = [location for location, text in rows if len(text) > 2 and text[0] == text[-1] == '"']
    yield make_finding("quotes kept", quoted, "texts are enclosed in the quotes of the file", "none", WARNING)
    returns = [location for location, example in records.iter_located_examples() if "\r" in example.prompt]
    yield make_finding("carriage returns", returns, "texts with one: split at LF and remove the CR", "none in a text")
    damaged = [location for location, example in records.iter_located_examples() if "\ufffd" in example.prompt]
    yield make_finding("damaged characters", damaged, "texts with U+FFFD, damaged in the files", "none", WARNING)


# -------------------------------------------------------------------- Records and splits


def check_dropped_records(records: LoadedRecords) -> Iterator[Finding]:
    """Report dropped records by reason, and check that two readings yield the same examples."""
    for (part, reason), locations in records.dropped_locations.items():
        yield Finding("left out", WARNING, f"{len(locations):,} {part} records: {reason}, first {locations[0]}")
    changed = [
        example.uid
        for example in (*records.train_examples, *records.test_examples)
        if example.uid not in records.location_by_uid
    ]
    yield make_finding("determinism", changed, "examples differ in a second reading", "two readings, the same examples")


def check_duplicates(records: LoadedRecords) -> Iterator[Finding]:
    """Check for duplicates in a part; the loader keeps one of them, or none if their labels conflict."""
    duplicates: list[str] = []
    contradictions: list[str] = []
    for located_examples in records.examples_by_part.values():
        first_by_uid: dict[str, tuple[str, Example]] = {}
        for location, example in located_examples:
            if example.uid in first_by_uid:
                first_location, first = first_by_uid[example.uid]
                message = f"{location}, which repeats {first_location}"
                if set(example.answers) & set(first.answers):
                    duplicates.append(message)
                else:
                    contradictions.append(message)
            first_by_uid.setdefault(example.uid, (location, example))
    yield make_finding("duplicates", duplicates, "records; one of each is kept", "none", WARNING)
    problem = "records have the text of another record and a different answer"
    yield make_finding("contradictions", contradictions, problem, "none", WARNING)


def check_leaks(records: LoadedRecords) -> Iterator[Finding]:
    """Check for test examples in train or dev: across files, where the loader removes them, and in the splits."""
    parts = list(records.examples_by_part)
    if len(parts) > 1:
        train_uids = {example.uid for _, example in records.examples_by_part[parts[0]]}
        repeated = [location for location, example in records.examples_by_part[parts[1]] if example.uid in train_uids]
        problem = f"{parts[1]} records; they are removed from {parts[0]}"
        yield make_finding("test in train", repeated, problem, "none across files", WARNING)
    train_prompts = {example.prompt for example in records.train_examples}
    train_letters = {get_letters(example) for example in records.train_examples}
    exact = [records.location_by_uid[e.uid] for e in records.test_examples if e.prompt in train_prompts]
    problem = "test prompts are in train: their `identity_values` differ"
    yield make_finding("leaks", exact, problem, "no test prompt is in train")
    near = [
        records.location_by_uid[e.uid]
        for e in records.test_examples
        if e.prompt not in train_prompts and get_letters(e) in train_letters
    ]
    problem = "test prompts differ from one in train only by case, spaces or punctuation"
    yield make_finding("near leaks", near, problem, "none", WARNING)
    shared = [
        records.location_by_uid[test.uid]
        for _, test in find_leaks(records.train_examples, records.test_examples)
        if get_letters(test) not in train_letters
    ]
    problem = "test examples share their main text with train; `group_text` keeps a document in one split"
    yield make_finding("shared texts", shared, problem, "none", WARNING)


def get_letters(example: Example) -> str:
    """Return the letters and digits of a prompt after its shared prefix, without case."""
    return "".join(char for char in example.prompt[example.prefix_length :].casefold() if char.isalnum())


def check_empty_texts(records: LoadedRecords) -> Iterator[Finding]:
    """Check that no main text is empty."""
    empty = [
        location for location, example in records.iter_located_examples() if not get_truncatable_text(example).strip()
    ]
    yield make_finding("empty texts", empty, "examples without a text: drop them in `read_examples`", "none")
