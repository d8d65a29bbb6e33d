"""Checks of answers, label words, prompts and lengths."""

from collections import Counter
from collections.abc import Iterator

from tasks.core.encoding import find_lost_answers, tokenize_label_words, tokenize_texts
from tasks.core.types import UsageError
from tasks.validation.findings import (
    FAILED,
    PASSED,
    WARNING,
    Finding,
    LoadedRecords,
    get_truncatable_text,
    make_finding,
)

MAX_LABEL_RATIO = 20  # maximum ratio of the most frequent label to the least frequent one


def check_answers(records: LoadedRecords) -> Iterator[Finding]:
    """Check that a span answer is in its text, and that a choice answer is among at least two choices."""
    if records.task.form == "span":
        locations = [
            location
            for location, example in records.iter_located_examples()
            if example.answers[0] not in get_truncatable_text(example)
        ]
        problem = "answers are not in the text: drop them in `read_examples`"
        yield make_finding("answer in the text", locations, problem, "always")
        return
    locations = [
        location
        for location, example in records.iter_located_examples()
        if len(example.choices) < 2 or not set(example.answers) <= set(example.choices)
    ]
    problem = "examples have fewer than two choices, or an answer that is not among them"
    yield make_finding("answer among choices", locations, problem, "always")


def check_prompts(records: LoadedRecords) -> Iterator[Finding]:
    """Check the end of the template, that the instruction names the labels, and that all prompts share a prefix."""
    template = records.task.template
    examples = [example for _, example in records.iter_located_examples()]
    unnamed = [word for word in records.task.words.values() if word not in template]
    if template != template.rstrip(" "):
        yield Finding("template", WARNING, "ends in a space, which tokenizers merge with the answer; end with the cue")
    else:
        yield make_finding(
            "template", unnamed, "label words are not named in the instruction", "names all labels", WARNING
        )
    prefixes = Counter(example.prompt[: example.prefix_length] for example in examples)
    usual = prefixes.most_common(1)[0][0]
    locations = [records.location_by_uid[e.uid] for e in examples if e.prompt[: e.prefix_length] != usual]
    problem = "prompts start differently: `prefix_length` counts the characters that all prompts share"
    yield make_finding("constant start", locations, problem, "the same in all prompts")


def check_label_words(records: LoadedRecords) -> Iterator[Finding]:
    """Check that the tokenizer distinguishes and knows all label words, and that none is the beginning of another."""
    task = records.task
    if task.form == "span":
        return
    words = list(task.words.values()) or sorted(
        {choice for _, example in records.iter_located_examples() for choice in example.choices}
    )
    try:
        ids = tokenize_label_words(task.name, task.tokenizer, words)
    except UsageError as error:
        yield Finding("label words", FAILED, str(error))
        return
    unknown = [word for word in words if task.tokenizer.unk_token_id in ids[word]]
    lengths = ", ".join(f"{word} {len(ids[word])}" for word in words[:12])
    yield make_finding(
        "label words", unknown, "label words are unknown to the tokenizer", f"all different; tokens per word: {lengths}"
    )
    beginnings = [f"{a} in {b}" for a in words for b in words if a != b and ids[b][: len(ids[a])] == ids[a]]
    problem = (
        "label words begin another one, which therefore never has a higher likelihood; "
        "choose other words or normalise: mean"
    )
    yield make_finding("label beginnings", beginnings, problem, "no word begins another")


def check_labels(records: LoadedRecords) -> Iterator[Finding]:
    """Check that every label is in train and in test, and that labels (or option positions) are balanced."""
    if records.task.form == "span":
        return
    counts = Counter(example.answers[0] for example in records.train_examples)
    tested = {answer for example in records.test_examples for answer in example.answers}
    words = list(records.task.words.values())
    if words:
        untrained = [word for word in words if not counts[word]]
        yield make_finding("labels trained", untrained, "labels have no training example", "all")
        untested = [word for word in words if word not in tested]
        yield make_finding("labels tested", untested, "labels have no test example", "all", WARNING)
    options = sorted({choice for example in records.train_examples for choice in example.choices})
    most = max(counts.values())
    least = min(counts[word] for word in words or options)
    message = f"from {least:,} to {most:,} examples of a label, train and dev together"
    if most <= MAX_LABEL_RATIO * least:
        yield Finding("balance", PASSED, message)
    elif words:
        yield Finding("balance", WARNING, f"{message}: use macro_f1, not accuracy")
    else:
        yield Finding("balance", WARNING, f"{message}: the position of an option predicts the answer; shuffle options")


def check_lengths(records: LoadedRecords) -> Iterator[Finding]:
    """Check how many examples are truncated, whether answers are lost, and whether answers exceed `answer_tokens`."""
    task = records.task
    try:
        test_items = task.encode_split("test")
        items = [item for split in ("train", "dev") for item in task.encode_split(split)] + test_items
    except UsageError as error:  # label words with the same tokens, or max_length too short
        yield Finding("length", FAILED, str(error))
        return
    truncated = [records.location_by_uid[item.example.uid] for item in items if item.num_cut_tokens]
    longest = max(len(item.prompt_ids) + item.num_cut_tokens + len(item.answer_ids) for item in items)
    problem = f"of {len(items):,} examples are truncated to {task.max_length} tokens; the longest has {longest:,}"
    passed_message = f"none is truncated; the longest has {longest:,} of {task.max_length} tokens"
    yield make_finding("length", truncated, problem, passed_message, WARNING)
    if task.form != "span":
        return
    lost = [records.location_by_uid[item.example.uid] for item in find_lost_answers(task.tokenizer, test_items)]
    yield make_finding("answers cut off", lost, "test answers are in the truncated part", "none", WARNING)
    examples = [example for _, example in records.iter_located_examples()]
    answer_ids = tokenize_texts(task.tokenizer, [example.answers[0] for example in examples])
    sizes = {example.uid: len(ids) for example, ids in zip(examples, answer_ids, strict=True)}
    long = [records.location_by_uid[uid] for uid, size in sizes.items() if size >= task.answer_tokens]
    problem = f"answers have {task.answer_tokens} tokens (answer_tokens) or more, at which generation stops"
    yield make_finding("long answers", long, problem, "none", WARNING)


ANSWER_CHECKS = (check_answers, check_prompts, check_label_words, check_labels, check_lengths)
