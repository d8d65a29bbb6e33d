"""Is a loader right? The traps of files, records and splits, each looked for: one finding, or line, for each.

What `describe` shows is for reading; this is for failing: a finding says what is wrong, how often, and where first.
Those of answers, prompts and label words are in `check_answers`.
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
    """All findings on a task that has a tokenizer."""
    try:
        task.prepare_data()
        yield from check_raw_files(task)
        seen = read_for_checks(task)
    except Exception as error:  # whatever a loader raises is the verdict on it
        said = (
            str(error) if isinstance(error, UsageError) else f"{task.record_location}: {type(error).__name__}: {error}"
        )
        yield Finding("records", FAILED, " ".join(said.split())[:300])
        return
    rows = (f"{task.report['rows'][part]:,} {part}" for part in seen.examples_by_part)
    splits = (f"{count:,} {name}" for name, count in task.report["splits"].items())
    yield Finding("records", PASSED, f"{', '.join(rows)}; in use: {', '.join(splits)}")
    for each in (
        check_dropped_records,
        check_duplicates,
        check_leaks,
        check_quoting,
        check_empty_texts,
        *ANSWER_CHECKS,
    ):
        yield from each(seen)


def read_for_checks(task: Task) -> LoadedRecords:
    """Read once for the places, and once as runs do."""
    parts, found = task.record_source.find_parts(), {}
    left_out: dict[tuple[str, str], list[str]] = {}

    def noted(raw_part: str, reason: str, count: int = 1) -> None:
        if count:
            left_out.setdefault((raw_part, reason), []).extend([task.record_location] * count)

    for part in dict.fromkeys(choose_train_and_test(parts)):
        task.count_dropped = noted  # type: ignore[method-assign]  # of this one object, for as long as it reads
        found[part] = [(task.record_location, example) for example in task.read_examples(part)]
        del task.count_dropped
    task.setup()
    pool, _ = task.load_pool()
    places: dict[str, str] = {}
    for rows in found.values():
        for place, example in rows:
            places.setdefault(example.uid, place)
    return LoadedRecords(task, found, places, left_out, [*pool["train"], *pool["dev"]], pool["test"])


# -------------------------------------------------------------------- files


def check_raw_files(task: Task) -> Iterator[Finding]:
    """Marks and line ends, as they are on disk."""
    if not isinstance(task.record_source, LocalSource) or isinstance(task.record_source, GitHubSource):
        return
    marks, inner, lone = [], [], []
    ends: Counter[str] = Counter()
    for file in task.record_source.find_parts().values():
        for path in file.paths:
            text = (task.record_source.folder / path).read_bytes().decode("utf-8", "replace")
            marks += [path] * text.startswith(BYTE_ORDER_MARK)
            inner += [f"{path}:{text.count(chr(10), 0, at) + 1}" for at in [text.find(BYTE_ORDER_MARK, 1)] if at > 0]
            crlf = text.count("\r\n")
            ends.update({"CRLF": crlf, "LF": text.count("\n") - crlf})
            rest = text.replace("\r\n", "\n")
            lone += [f"{path}:{rest.count(chr(10), 0, at) + 1}" for at in [rest.find("\r")] if at >= 0]
    fine = f"at the start of {', '.join(marks)}, and taken off" if marks else "none"
    yield make_finding(
        "byte order mark", inner, "files with one inside (files joined?); it is taken out", fine, WARNING
    )
    used = [name for name, count in ends.items() if count]
    fine = f"{' and '.join(used) or 'one line'}; records end at LF and lose a CR before it"
    yield make_finding("line ends", lone, "files with a CR that ends no line; a reader may split there", fine, WARNING)


def iter_delimited_texts(records: LoadedRecords) -> Iterator[tuple[str, str]]:
    """Places and texts of what comes from files with columns."""
    if isinstance(records.task.record_source, LocalSource):
        files = records.task.record_source.find_parts()
        for part, rows in records.examples_by_part.items():
            if all(path.endswith(DELIMITED_SUFFIXES) for path in files[part].paths):
                yield from ((place, get_truncatable_text(example)) for place, example in rows)


def check_quoting(records: LoadedRecords) -> Iterator[Finding]:
    """What quoting does to columns: lines that a quote swallowed, and quotes that were kept as text."""
    rows = list(iter_delimited_texts(records))
    runs = [place for place, text in rows if "\n" in text]
    columns = [place for place, text in rows if "\n" in text and "\t" in text]
    said = "texts run over several lines; a quote that is not closed does that"
    state = FAILED if columns else WARNING
    yield make_finding(
        "quoting", columns or runs, said + (", and takes columns too" if columns else ""), "no line swallowed", state
    )
    kept = [place for place, text in rows if len(text) > 2 and text[0] == text[-1] == '"']
    yield make_finding("quotes kept", kept, "texts have the quotes of the file around them", "none", WARNING)
    bad = [place for place, example in records.iter_located_examples() if "\r" in example.prompt]
    yield make_finding("carriage returns", bad, "texts with one: split at LF and take the CR off", "none in a text")
    damaged = [place for place, example in records.iter_located_examples() if "\ufffd" in example.prompt]
    yield make_finding("damaged characters", damaged, "texts with U+FFFD, lost before they came here", "none", WARNING)


# -------------------------------------------------------------------- records and splits


def check_dropped_records(records: LoadedRecords) -> Iterator[Finding]:
    for (part, reason), places in records.dropped_locations.items():
        yield Finding("left out", WARNING, f"{len(places):,} {part} records: {reason}, first {places[0]}")
    lost = [
        example.uid
        for example in (*records.train_examples, *records.test_examples)
        if example.uid not in records.location_by_uid
    ]
    yield make_finding("determinism", lost, "examples came only at a second reading", "read twice, the same examples")


def check_duplicates(records: LoadedRecords) -> Iterator[Finding]:
    """The same item more than once in a part; the loader keeps one, or none where labels contradict each other."""
    more: list[str] = []
    against: list[str] = []
    for rows in records.examples_by_part.values():
        first: dict[str, tuple[str, Example]] = {}
        for place, example in rows:
            if example.uid in first:
                before, other = first[example.uid]
                same = set(example.answers) & set(other.answers)
                (more if same else against).append(f"{place}, which repeats {before}")
            first.setdefault(example.uid, (place, example))
    yield make_finding("duplicates", more, "records; one of each is kept", "none", WARNING)
    yield make_finding(
        "contradictions", against, "records with the text of another and another answer", "none", WARNING
    )


def check_leaks(records: LoadedRecords) -> Iterator[Finding]:
    """The same item in train (or dev) and test: across files, which the loader heals, and after that."""
    parts = list(records.examples_by_part)
    if len(parts) > 1:
        others = {example.uid for _, example in records.examples_by_part[parts[0]]}
        bad = [place for place, example in records.examples_by_part[parts[1]] if example.uid in others]
        yield make_finding(
            "test in train", bad, f"{parts[1]} records; they leave {parts[0]}", "none across files", WARNING
        )
    prompts, bare = {e.prompt for e in records.train_examples}, {get_letters(e) for e in records.train_examples}
    exact = [records.location_by_uid[e.uid] for e in records.test_examples if e.prompt in prompts]
    fine = "no test prompt is trained on"
    yield make_finding("leaks", exact, "test prompts are trained on: `key` makes two of one item", fine)
    near = [
        records.location_by_uid[e.uid]
        for e in records.test_examples
        if e.prompt not in prompts and get_letters(e) in bare
    ]
    said = "test prompts differ from one in train by case, spaces or punctuation alone"
    yield make_finding("near leaks", near, said, "none", WARNING)
    pairs = [
        records.location_by_uid[test.uid]
        for _, test in find_leaks(records.train_examples, records.test_examples)
        if get_letters(test) not in bare
    ]
    said = "test examples share their longest text with train; `group` keeps a document in one split"
    yield make_finding("shared texts", pairs, said, "none", WARNING)


def get_letters(example: Example) -> str:
    return "".join(char for char in example.prompt[example.prefix_length :].casefold() if char.isalnum())


def check_empty_texts(records: LoadedRecords) -> Iterator[Finding]:
    bad = [place for place, example in records.iter_located_examples() if not get_truncatable_text(example).strip()]
    yield make_finding("empty texts", bad, "examples without a text: drop them in `read`", "none")
