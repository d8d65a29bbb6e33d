"""The traps of answers, label words, prompts and lengths, as `check` finds them."""

from collections import Counter
from collections.abc import Iterator

from tasks.encode import answer_ids, lost, tokens
from tasks.example import UsageError
from tasks.findings import FAILED, PASSED, WARNING, Finding, Seen, finding, shown

UNEVEN = 20  # times more examples of one label than of another


def answers(seen: Seen) -> Iterator[Finding]:
    if seen.task.form == "span":
        bad = [place for place, example in seen.every() if example.answers[0] not in shown(example)]
        yield finding("answer in the text", bad, "answers are not: drop them in `read`", "always")
        return
    bad = [place for place, e in seen.every() if len(e.choices) < 2 or not set(e.answers) <= set(e.choices)]
    yield finding("answer among choices", bad, "examples without two choices, or answered by none of them", "always")


def prompts(seen: Seen) -> Iterator[Finding]:
    template, every = seen.task.template, [example for _, example in seen.every()]
    unnamed = [word for word in seen.task.words.values() if word not in template]
    if template != template.rstrip(" "):
        yield Finding("template", WARNING, "ends in a space, which tokenizers join to the answer; end with the cue")
    else:
        yield finding("template", unnamed, "label words are not named in the instruction", "names its labels", WARNING)
    heads = Counter(example.prompt[: example.prefix] for example in every)
    usual = heads.most_common(1)[0][0]
    bad = [seen.places[e.uid] for e in every if e.prompt[: e.prefix] != usual]
    yield finding("constant start", bad, "prompts start otherwise: `prefix` counts what all share", "the same in all")


def words(seen: Seen) -> Iterator[Finding]:
    """Label words under this tokenizer: apart, known, and none the beginning of another."""
    task = seen.task
    if task.form == "span":
        return
    every = list(task.words.values()) or sorted({choice for _, e in seen.every() for choice in e.choices})
    try:
        ids = answer_ids(task, task.tokenizer, every)
    except UsageError as error:
        yield Finding("label words", FAILED, str(error))
        return
    unknown = [word for word in every if task.tokenizer.unk_token_id in ids[word]]
    sizes = f"tokens each: {', '.join(f'{word} {len(ids[word])}' for word in every[:12])}"
    yield finding("label words", unknown, "label words are unknown to the tokenizer", f"told apart; {sizes}")
    inside = [f"{a} in {b}" for a in every for b in every if a != b and ids[b][: len(ids[a])] == ids[a]]
    said = "label words begin another, whose likelihood is never above theirs; choose other words or normalise: mean"
    yield finding("label beginnings", inside, said, "no word begins another")


def labels(seen: Seen) -> Iterator[Finding]:
    """Which are learned and asked, and how often; of options, whether their place alone tells the right one."""
    if seen.task.form == "span":
        return
    counts = Counter(example.answers[0] for example in seen.train)
    tested = {answer for example in seen.test for answer in example.answers}
    every = list(seen.task.words.values())
    if every:
        yield finding("labels trained", [w for w in every if not counts[w]], "labels have no training example", "all")
        yield finding("labels tested", [w for w in every if w not in tested], "labels are never asked", "all", WARNING)
    options = sorted({choice for example in seen.train for choice in example.choices})
    most, least = max(counts.values()), min(counts[word] for word in every or options)
    said = f"from {least:,} to {most:,} examples of a label, train and dev together"
    state = WARNING if most > UNEVEN * least else PASSED
    advice = (
        ": look at macro_f1, not at accuracy" if every else ": the place of an option tells the answer, so mix them"
    )
    yield Finding("balance", state, said + advice * (state == WARNING))


def lengths(seen: Seen) -> Iterator[Finding]:
    """What the limit cuts, and whether an answer went with it."""
    task = seen.task
    try:
        test = task.encoded("test")
        items = [item for split in ("train", "dev") for item in task.encoded(split)] + test
    except UsageError as error:  # words that cannot be told apart, or a limit that leaves no room
        yield Finding("length", FAILED, str(error))
        return
    bad = [seen.places[item.example.uid] for item in items if item.cut]
    most = max(len(item.prompt) + item.cut + len(item.answer) for item in items)
    said = f"of {len(items):,} examples are cut to {task.max_length} tokens; the longest has {most:,}"
    yield finding("length", bad, said, f"none is cut; the longest has {most:,} of {task.max_length} tokens", WARNING)
    if task.form != "span":
        return
    places = [seen.places[item.example.uid] for item in lost(task.tokenizer, test)]
    yield finding("answers cut off", places, "test answers are in the part that is cut", "none", WARNING)
    sizes = {e.uid: len(ids) for (_, e), ids in zip(
        seen.every(), tokens(task.tokenizer, [e.answers[0] for _, e in seen.every()]), strict=True)}  # fmt: skip
    long = [seen.places[uid] for uid, size in sizes.items() if size >= task.answer_tokens]
    said = f"answers have answer_tokens ({task.answer_tokens}) tokens or more, and are decoded up to there"
    yield finding("long answers", long, said, "none", WARNING)


ANSWERS = (answers, prompts, words, labels, lengths)
