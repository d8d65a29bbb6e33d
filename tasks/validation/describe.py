"""What a task's loader did, for people: the answer to "is my loader right?"."""

from collections.abc import Iterator, Sequence

from tasks.base import Task
from tasks.core.encoding import find_lost_answers, tokenize_label_words
from tasks.core.sources import GitHubSource, LocalSource
from tasks.core.types import Example

HISTOGRAM_BINS = 8  # of the histogram
HISTOGRAM_WIDTH = 30  # its longest bar
NUM_SHOWN_PROMPTS = 3  # prompts


def describe_task(task: Task) -> str:
    """Source, raw files, splits, labels, what was removed, lengths, licence and three prompts with answers."""
    task.setup()
    return "\n".join(
        [
            *format_overview(task),
            *format_raw_files(task),
            *format_splits(task),
            *format_labels(task),
            *format_lengths(task),
            *format_prompts(task),
        ]
    )


def format_overview(task: Task) -> Iterator[str]:
    yield f"{task.name}: {task.family}, {task.form}, {task.role} task; metrics {', '.join(task.metrics)} (primary first)"
    yield from (line.strip() for line in (type(task).__doc__ or "").strip().splitlines() if line.strip())
    yield f"source   {task.report['source']}"
    yield f"licence  {task.licence}"


def format_raw_files(task: Task) -> Iterator[str]:
    """Every raw file that is there, with its rows; those that were not read say why."""
    yield "raw rows"
    origin, read = task.record_source, {file.title: part for part, file in task.record_source.find_parts().items()}
    known = (
        task.files
        if isinstance(origin, LocalSource) and not isinstance(origin, GitHubSource)
        else origin.find_parts().values()
    )
    for file in known:
        if not origin.has_file(file):
            if file.part and file.title not in read and file.part not in origin.find_parts():
                yield f"  {'missing':>9}  {file.title}"
            continue
        part = read.get(file.title, "")
        used = part in task.report["rows"]
        rows = task.report["rows"][part] if used else sum(1 for _ in origin.iter_records(file))
        yield f"  {rows:>9,}  {file.title}{'' if used else f'  (not used: {file.note or explain_unused_part(part)})'}"


def explain_unused_part(raw_part: str) -> str:
    return "train and test are there" if raw_part else "another copy is read"


def format_splits(task: Task) -> Iterator[str]:
    yield "splits" if task.shots is None else f"splits, {task.shots} shots, seed {task.seed}"
    for name, examples in task.examples.items():
        yield f"  {len(examples):>9,}  {name}, from {task.report['from'][name]}"
    for name, few in task.report["short"].items():
        if few:
            yield f"  {name}: fewer than {task.shots} of {', '.join(f'{k or name} ({v})' for k, v in few.items())}"
    yield "removed"
    removed = [(part, *item) for part, counts in task.report["dropped"].items() for item in counts.items() if item[1]]
    for part, reason, count in removed:
        yield f"  {count:>9,}  {reason}, in the {part} records"
    if not removed:
        yield "          0"
    if task.report["damaged"]:
        yield f"texts with U+FFFD (broken where they were published, kept): {task.report['damaged']}"


def format_labels(task: Task) -> Iterator[str]:
    counts = task.report["labels"]
    if not counts["train"]:
        return
    tokens = {}
    if task.tokenizer is not None:
        tokens = {
            word: len(ids) for word, ids in tokenize_label_words(task, task.tokenizer, list(counts["train"])).items()
        }
    yield f"labels: {', '.join(counts)}{', tokens of the word' if tokens else ''}"
    raw = {word: label for label, word in task.words.items()}
    for word in counts["train"]:
        numbers = " ".join(f"{counts[name].get(word, 0):>8,}" for name in counts)
        yield f"  {numbers} {tokens.get(word, ''):>3}  {word} ({raw.get(word, 'option')})"


def format_lengths(task: Task) -> Iterator[str]:
    """Lengths of all splits together, prompt and answer, in tokens (characters where there is no tokenizer)."""
    if task.tokenizer is None:
        sizes = [len(e.prompt) + len(e.answers[0]) for examples in task.examples.values() for e in examples]
        yield "length in characters (no tokenizer given), prompt and answer"
        yield from format_histogram(sizes)
        return
    items = {name: task.encode_split(name) for name in task.examples}
    sizes = [len(i.prompt_ids) + i.num_cut_tokens + len(i.answer_ids) for encoded in items.values() for i in encoded]
    yield f"length in tokens before cutting, prompt and answer; limit {task.max_length}"
    yield from format_histogram(sizes)
    shares = ", ".join(f"{name} {task.report['cut'][name] / max(1, len(found)):.1%}" for name, found in items.items())
    yield f"cut to the limit: {shares}"
    if gone := {name: len(found) for name in items if (found := find_lost_answers(task.tokenizer, items[name]))}:
        yield f"answers in what was cut: {', '.join(f'{name} {count}' for name, count in gone.items())}"


def format_histogram(lengths: Sequence[int]) -> Iterator[str]:
    top = max(lengths)
    step = -(-top // HISTOGRAM_BINS)
    bins = [0] * HISTOGRAM_BINS
    for size in lengths:
        bins[(size - 1) // step] += 1
    for number, count in enumerate(bins):
        bar = "#" * -(-count * HISTOGRAM_WIDTH // max(bins))
        yield f"  {number * step + 1:>6}-{(number + 1) * step:<6} {count:>9,} {bar}"
    yield f"  mean {sum(lengths) / len(lengths):.1f}, 99 % at most {sorted(lengths)[int(0.99 * len(lengths))]}, longest {top}"


def format_prompts(task: Task) -> Iterator[str]:
    shown: list[Example] = task.examples["train"][:NUM_SHOWN_PROMPTS]
    for example in shown:
        yield f"--- {example.uid}"
        yield f"{example.prompt}[{'|'.join(example.answers)}]"
