"""Readable description of what a task's loader did: files, splits, labels, lengths and prompts."""

from collections.abc import Iterator, Sequence

from tasks.base import Task
from tasks.core.encoding import find_lost_answers, tokenize_label_words
from tasks.core.sources import GitHubSource, LocalSource
from tasks.core.types import Example

HISTOGRAM_BINS = 8
HISTOGRAM_WIDTH = 30  # characters of the longest bar
NUM_SHOWN_PROMPTS = 3


def describe_task(task: Task) -> str:
    """Describe source, licence, raw files, splits, removed records, labels, lengths, and three prompts with answers."""
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
    """Yield name, family, metrics, docstring, source and licence."""
    metrics = ", ".join(task.metrics)
    yield f"{task.name}: {task.family}, {task.form}, {task.role} task; metrics {metrics} (primary first)"
    yield from (line.strip() for line in (type(task).__doc__ or "").strip().splitlines() if line.strip())
    yield f"source   {task.report['source']}"
    yield f"licence  {task.licence}"


def format_raw_files(task: Task) -> Iterator[str]:
    """Yield the number of rows of every raw file, and the reason for files that are not used."""
    yield "raw rows"
    source = task.record_source
    parts = source.find_parts()
    part_by_title = {file.title: part for part, file in parts.items()}
    is_local = isinstance(source, LocalSource) and not isinstance(source, GitHubSource)
    files = task.files if is_local else tuple(parts.values())
    for file in files:
        if not source.has_file(file):
            if file.part and file.title not in part_by_title and file.part not in parts:
                yield f"  {'missing':>9}  {file.title}"
            continue
        part = part_by_title.get(file.title, "")
        if part in task.report["rows"]:
            yield f"  {task.report['rows'][part]:>9,}  {file.title}"
        else:
            num_rows = sum(1 for _ in source.iter_records(file))
            yield f"  {num_rows:>9,}  {file.title}  (not used: {file.note or explain_unused_part(part)})"


def explain_unused_part(raw_part: str) -> str:
    """Return the reason why a file is not read: its part is not needed, or (part "") it has an alternative."""
    return "train and test exist" if raw_part else "another copy is read"


def format_splits(task: Task) -> Iterator[str]:
    """Yield the size and origin of the splits, and the removed records by reason."""
    yield "splits" if task.shots is None else f"splits, {task.shots} shots, seed {task.seed}"
    for name, examples in task.examples.items():
        yield f"  {len(examples):>9,}  {name}, from {task.report['from'][name]}"
    for name, few in task.report["short"].items():
        if few:
            yield f"  {name}: fewer than {task.shots} of {', '.join(f'{k or name} ({v})' for k, v in few.items())}"
    yield "removed"
    removed = [
        (part, reason, count)
        for part, counts in task.report["dropped"].items()
        for reason, count in counts.items()
        if count
    ]
    for part, reason, count in removed:
        yield f"  {count:>9,}  {reason}, in the {part} records"
    if not removed:
        yield "          0"
    if task.report["damaged"]:
        yield f"texts with U+FFFD (damaged in the published files, kept): {task.report['damaged']}"


def format_labels(task: Task) -> Iterator[str]:
    """Yield the number of examples per label and split, and the number of tokens of each label word."""
    counts = task.report["labels"]
    if not counts["train"]:
        return
    num_tokens = {}
    if task.tokenizer is not None:
        ids_by_word = tokenize_label_words(task.name, task.tokenizer, list(counts["train"]))
        num_tokens = {word: len(ids) for word, ids in ids_by_word.items()}
    yield f"labels: {', '.join(counts)}{', tokens of the word' if num_tokens else ''}"
    raw_labels = {word: label for label, word in task.words.items()}
    for word in counts["train"]:
        numbers = " ".join(f"{counts[name].get(word, 0):>8,}" for name in counts)
        yield f"  {numbers} {num_tokens.get(word, ''):>3}  {word} ({raw_labels.get(word, 'option')})"


def format_lengths(task: Task) -> Iterator[str]:
    """Yield a histogram of the lengths of prompt and answer over all splits, in tokens (characters if no tokenizer)."""
    if task.tokenizer is None:
        lengths = [len(e.prompt) + len(e.answers[0]) for examples in task.examples.values() for e in examples]
        yield "length in characters (no tokenizer), prompt and answer"
        yield from format_histogram(lengths)
        return
    splits = {name: task.encode_split(name) for name in task.examples}
    lengths = [len(e.prompt_ids) + e.num_cut_tokens + len(e.answer_ids) for items in splits.values() for e in items]
    yield f"length in tokens before truncation, prompt and answer; limit {task.max_length}"
    yield from format_histogram(lengths)
    shares = ", ".join(f"{name} {task.report['cut'][name] / max(1, len(items)):.1%}" for name, items in splits.items())
    yield f"truncated to the limit: {shares}"
    num_lost = {name: len(find_lost_answers(task.tokenizer, items)) for name, items in splits.items()}
    if any(num_lost.values()):
        yield f"answers lost by truncation: {', '.join(f'{name} {count}' for name, count in num_lost.items() if count)}"


def format_histogram(lengths: Sequence[int]) -> Iterator[str]:
    """Yield a histogram with HISTOGRAM_BINS bins, then mean, 99th percentile and maximum."""
    longest = max(lengths)
    step = -(-longest // HISTOGRAM_BINS)
    bins = [0] * HISTOGRAM_BINS
    for length in lengths:
        bins[(length - 1) // step] += 1
    for number, count in enumerate(bins):
        bar = "#" * -(-count * HISTOGRAM_WIDTH // max(bins))
        yield f"  {number * step + 1:>6}-{(number + 1) * step:<6} {count:>9,} {bar}"
    percentile = sorted(lengths)[int(0.99 * len(lengths))]
    yield f"  mean {sum(lengths) / len(lengths):.1f}, 99 % at most {percentile}, longest {longest}"


def format_prompts(task: Task) -> Iterator[str]:
    """Yield the first training prompts with their answers in brackets."""
    shown: list[Example] = task.examples["train"][:NUM_SHOWN_PROMPTS]
    for example in shown:
        yield f"--- {example.uid}"
        yield f"{example.prompt}[{'|'.join(example.answers)}]"
