"""The traps of answers, label words, prompts and lengths, as `check` finds them."""

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

MAX_LABEL_RATIO = 20  # times more examples of one label than of another


def check_answers(records: LoadedRecords) -> Iterator[Finding]:
    if records.task.form == "span":
        bad = [
            place
            for place, example in records.iter_located_examples()
            if example.answers[0] not in get_truncatable_text(example)
        ]
        yield make_finding("answer in the text", bad, "answers are not: drop them in `read`", "always")
        return
    bad = [
        place
        for place, e in records.iter_located_examples()
        if len(e.choices) < 2 or not set(e.answers) <= set(e.choices)
    ]
    yield make_finding(
        "answer among choices", bad, "examples without two choices, or answered by none of them", "always"
    )


def check_prompts(records: LoadedRecords) -> Iterator[Finding]:
    template, every = records.task.template, [example for _, example in records.iter_located_examples()]
    unnamed = [word for word in records.task.words.values() if word not in template]
    if template != template.rstrip(" "):
        yield Finding("template", WARNING, "ends in a space, which tokenizers join to the answer; end with the cue")
    else:
        yield make_finding(
            "template", unnamed, "label words are not named in the instruction", "names its labels", WARNING
        )
    heads = Counter(example.prompt[: example.prefix_length] for example in every)
    usual = heads.most_common(1)[0][0]
    bad = [records.location_by_uid[e.uid] for e in every if e.prompt[: e.prefix_length] != usual]
    yield make_finding(
        "constant start", bad, "prompts start otherwise: `prefix` counts what all share", "the same in all"
    )


def check_label_words(records: LoadedRecords) -> Iterator[Finding]:
    """Label words under this tokenizer: apart, known, and none the beginning of another."""
    task = records.task
    if task.form == "span":
        return
    every = list(task.words.values()) or sorted(
        {choice for _, e in records.iter_located_examples() for choice in e.choices}
    )
    try:
        ids = tokenize_label_words(task, task.tokenizer, every)
    except UsageError as error:
        yield Finding("label words", FAILED, str(error))
        return
    unknown = [word for word in every if task.tokenizer.unk_token_id in ids[word]]
    sizes = f"tokens each: {', '.join(f'{word} {len(ids[word])}' for word in every[:12])}"
    yield make_finding("label words", unknown, "label words are unknown to the tokenizer", f"told apart; {sizes}")
    inside = [f"{a} in {b}" for a in every for b in every if a != b and ids[b][: len(ids[a])] == ids[a]]
    said = "label words begin another, whose likelihood is never above theirs; choose other words or normalise: mean"
    yield make_finding("label beginnings", inside, said, "no word begins another")


def check_labels(records: LoadedRecords) -> Iterator[Finding]:
    """Which are learned and asked, and how often; of options, whether their place alone tells the right one."""
    if records.task.form == "span":
        return
    counts = Counter(example.answers[0] for example in records.train_examples)
    tested = {answer for example in records.test_examples for answer in example.answers}
    every = list(records.task.words.values())
    if every:
        yield make_finding(
            "labels trained", [w for w in every if not counts[w]], "labels have no training example", "all"
        )
        yield make_finding(
            "labels tested", [w for w in every if w not in tested], "labels are never asked", "all", WARNING
        )
    options = sorted({choice for example in records.train_examples for choice in example.choices})
    most, least = max(counts.values()), min(counts[word] for word in every or options)
    said = f"from {least:,} to {most:,} examples of a label, train and dev together"
    state = WARNING if most > MAX_LABEL_RATIO * least else PASSED
    advice = (
        ": look at macro_f1, not at accuracy" if every else ": the place of an option tells the answer, so mix them"
    )
    yield Finding("balance", state, said + advice * (state == WARNING))


def check_lengths(records: LoadedRecords) -> Iterator[Finding]:
    """What the limit cuts, and whether an answer went with it."""
    task = records.task
    try:
        test = task.encode_split("test")
        items = [item for split in ("train", "dev") for item in task.encode_split(split)] + test
    except UsageError as error:  # words that cannot be told apart, or a limit that leaves no room
        yield Finding("length", FAILED, str(error))
        return
    bad = [records.location_by_uid[item.example.uid] for item in items if item.num_cut_tokens]
    most = max(len(item.prompt_ids) + item.num_cut_tokens + len(item.answer_ids) for item in items)
    said = f"of {len(items):,} examples are cut to {task.max_length} tokens; the longest has {most:,}"
    yield make_finding(
        "length", bad, said, f"none is cut; the longest has {most:,} of {task.max_length} tokens", WARNING
    )
    if task.form != "span":
        return
    places = [records.location_by_uid[item.example.uid] for item in find_lost_answers(task.tokenizer, test)]
    yield make_finding("answers cut off", places, "test answers are in the part that is cut", "none", WARNING)
    sizes = {e.uid: len(ids) for (_, e), ids in zip(
        records.iter_located_examples(), tokenize_texts(task.tokenizer, [e.answers[0] for _, e in records.iter_located_examples()]), strict=True)}  # fmt: skip
    long = [records.location_by_uid[uid] for uid, size in sizes.items() if size >= task.answer_tokens]
    said = f"answers have answer_tokens ({task.answer_tokens}) tokens or more, and are decoded up to there"
    yield make_finding("long answers", long, said, "none", WARNING)


ANSWER_CHECKS = (check_answers, check_prompts, check_label_words, check_labels, check_lengths)
