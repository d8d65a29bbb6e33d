"""Is a loader right? The traps of files, records and splits, each looked for: one finding, or line, for each.

What `describe` shows is for reading; this is for failing: a finding says what is wrong, how often, and where first.
Those of answers, prompts and label words are in `check_answers`.
"""

from collections import Counter
from collections.abc import Iterator

from tasks.base import Task
from tasks.check_answers import ANSWERS
from tasks.example import Example, UsageError
from tasks.findings import FAILED, PASSED, WARNING, Finding, Seen, finding, shown
from tasks.source import Local, Raw
from tasks.split import leaks, roles

DELIMITED = (".csv", ".tsv", ".txt")
MARK = "\ufeff"


def check(task: Task) -> Iterator[Finding]:
    """All findings on a task that has a tokenizer."""
    try:
        task.prepare_data()
        yield from raw_files(task)
        seen = read(task)
    except Exception as error:  # whatever a loader raises is the verdict on it
        said = str(error) if isinstance(error, UsageError) else f"{task.at}: {type(error).__name__}: {error}"
        yield Finding("records", FAILED, " ".join(said.split())[:300])
        return
    rows = (f"{task.report['rows'][part]:,} {part}" for part in seen.read)
    splits = (f"{count:,} {name}" for name, count in task.report["splits"].items())
    yield Finding("records", PASSED, f"{', '.join(rows)}; in use: {', '.join(splits)}")
    for each in (left_out, twice, same_again, quotes, empty, *ANSWERS):
        yield from each(seen)


def read(task: Task) -> Seen:
    """Read once for the places, and once as runs do."""
    parts, found = task.origin.parts(), {}
    left_out: dict[tuple[str, str], list[str]] = {}

    def noted(part: str, reason: str, count: int = 1) -> None:
        if count:
            left_out.setdefault((part, reason), []).extend([task.at] * count)

    for part in dict.fromkeys(roles(parts)):
        task.drop = noted  # type: ignore[method-assign]  # of this one object, for as long as it reads
        found[part] = [(task.at, example) for example in task.read(part)]
        del task.drop
    task.setup()
    pool, _ = task.pool()
    places: dict[str, str] = {}
    for rows in found.values():
        for place, example in rows:
            places.setdefault(example.uid, place)
    return Seen(task, found, places, left_out, [*pool["train"], *pool["dev"]], pool["test"])


# -------------------------------------------------------------------- files


def raw_files(task: Task) -> Iterator[Finding]:
    """Marks and line ends, as they are on disk."""
    if not isinstance(task.origin, Local) or isinstance(task.origin, Raw):
        return
    marks, inner, lone = [], [], []
    ends: Counter[str] = Counter()
    for file in task.origin.parts().values():
        for path in file.paths:
            text = (task.origin.folder / path).read_bytes().decode("utf-8", "replace")
            marks += [path] * text.startswith(MARK)
            inner += [f"{path}:{text.count(chr(10), 0, at) + 1}" for at in [text.find(MARK, 1)] if at > 0]
            crlf = text.count("\r\n")
            ends.update({"CRLF": crlf, "LF": text.count("\n") - crlf})
            rest = text.replace("\r\n", "\n")
            lone += [f"{path}:{rest.count(chr(10), 0, at) + 1}" for at in [rest.find("\r")] if at >= 0]
    fine = f"at the start of {', '.join(marks)}, and taken off" if marks else "none"
    yield finding("byte order mark", inner, "files with one inside (files joined?); it is taken out", fine, WARNING)
    used = [name for name, count in ends.items() if count]
    fine = f"{' and '.join(used) or 'one line'}; records end at LF and lose a CR before it"
    yield finding("line ends", lone, "files with a CR that ends no line; a reader may split there", fine, WARNING)


def delimited(seen: Seen) -> Iterator[tuple[str, str]]:
    """Places and texts of what comes from files with columns."""
    if isinstance(seen.task.origin, Local):
        files = seen.task.origin.parts()
        for part, rows in seen.read.items():
            if all(path.endswith(DELIMITED) for path in files[part].paths):
                yield from ((place, shown(example)) for place, example in rows)


def quotes(seen: Seen) -> Iterator[Finding]:
    """What quoting does to columns: lines that a quote swallowed, and quotes that were kept as text."""
    rows = list(delimited(seen))
    runs = [place for place, text in rows if "\n" in text]
    columns = [place for place, text in rows if "\n" in text and "\t" in text]
    said = "texts run over several lines; a quote that is not closed does that"
    state = FAILED if columns else WARNING
    yield finding(
        "quoting", columns or runs, said + (", and takes columns too" if columns else ""), "no line swallowed", state
    )
    kept = [place for place, text in rows if len(text) > 2 and text[0] == text[-1] == '"']
    yield finding("quotes kept", kept, "texts have the quotes of the file around them", "none", WARNING)
    bad = [place for place, example in seen.every() if "\r" in example.prompt]
    yield finding("carriage returns", bad, "texts with one: split at LF and take the CR off", "none in a text")
    damaged = [place for place, example in seen.every() if "\ufffd" in example.prompt]
    yield finding("damaged characters", damaged, "texts with U+FFFD, lost before they came here", "none", WARNING)


# -------------------------------------------------------------------- records and splits


def left_out(seen: Seen) -> Iterator[Finding]:
    for (part, reason), places in seen.left_out.items():
        yield Finding("left out", WARNING, f"{len(places):,} {part} records: {reason}, first {places[0]}")
    lost = [example.uid for example in (*seen.train, *seen.test) if example.uid not in seen.places]
    yield finding("determinism", lost, "examples came only at a second reading", "read twice, the same examples")


def twice(seen: Seen) -> Iterator[Finding]:
    """The same item more than once in a part; the loader keeps one, or none where labels contradict each other."""
    more: list[str] = []
    against: list[str] = []
    for rows in seen.read.values():
        first: dict[str, tuple[str, Example]] = {}
        for place, example in rows:
            if example.uid in first:
                before, other = first[example.uid]
                same = set(example.answers) & set(other.answers)
                (more if same else against).append(f"{place}, which repeats {before}")
            first.setdefault(example.uid, (place, example))
    yield finding("duplicates", more, "records; one of each is kept", "none", WARNING)
    yield finding("contradictions", against, "records with the text of another and another answer", "none", WARNING)


def same_again(seen: Seen) -> Iterator[Finding]:
    """The same item in train (or dev) and test: across files, which the loader heals, and after that."""
    parts = list(seen.read)
    if len(parts) > 1:
        others = {example.uid for _, example in seen.read[parts[0]]}
        bad = [place for place, example in seen.read[parts[1]] if example.uid in others]
        yield finding("test in train", bad, f"{parts[1]} records; they leave {parts[0]}", "none across files", WARNING)
    prompts, bare = {e.prompt for e in seen.train}, {letters(e) for e in seen.train}
    exact = [seen.places[e.uid] for e in seen.test if e.prompt in prompts]
    fine = "no test prompt is trained on"
    yield finding("leaks", exact, "test prompts are trained on: `key` makes two of one item", fine)
    near = [seen.places[e.uid] for e in seen.test if e.prompt not in prompts and letters(e) in bare]
    said = "test prompts differ from one in train by case, spaces or punctuation alone"
    yield finding("near leaks", near, said, "none", WARNING)
    pairs = [seen.places[test.uid] for _, test in leaks(seen.train, seen.test) if letters(test) not in bare]
    said = "test examples share their longest text with train; `group` keeps a document in one split"
    yield finding("shared texts", pairs, said, "none", WARNING)


def letters(example: Example) -> str:
    return "".join(char for char in example.prompt[example.prefix :].casefold() if char.isalnum())


def empty(seen: Seen) -> Iterator[Finding]:
    bad = [place for place, example in seen.every() if not shown(example).strip()]
    yield finding("empty texts", bad, "examples without a text: drop them in `read`", "none")
