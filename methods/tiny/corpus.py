"""Pretraining corpus of the bundled tiny model: plain text of the synthetic domains, and instructions.

Instructions ask what the *source* tasks ask, in several wordings and label vocabularies, as instruction data shows a
real backbone; never in the tasks' own wordings, so that a source task leaves something to learn, and nothing of the
*target* tasks. Their label words occur in plain text only: a frozen backbone can be steered only to words it knows.

A document is a list of (text, weight): the weight of its tokens in the loss. Answers weigh more than the text around
them, since a comparison has to be learned from one token in forty.
"""

from collections.abc import Callable
from random import Random

from tasks.synthetic import nli, opinion_target, paraphrase, reading_comprehension, relation, sentiment, topic
from tasks.synthetic.lexicon import (
    ACTS,
    ASPECTS,
    BOTH_WAYS,
    COMPANIES,
    EVERYDAY,
    ONE_WAY,
    SAME,
    THINGS,
    TOPICS,
    TRADITIONAL,
)

Document = list[tuple[str, float]]
ANSWER_WEIGHT = 6.0  # weight of an answer's tokens, against 1 for plain text
PROMPT_WEIGHT = 0.3  # weight of an instruction's own text

PARAPHRASE_LABELS = (("不像", "很像"), ("否", "是"), ("两回事", "一回事"))
NLI_LABELS = (("相反", "无法判断", "成立"), ("假", "不知道", "真"), ("否定", "或许", "肯定"))
RATING_LABELS = (("一星", "二星", "三星", "四星", "五星"), ("很糟", "不好", "普通", "还好", "很好"))
RELATION_LABELS = {
    "unknown": ("没有", "无"), "Create": ("创作", "做成"), "Use": ("用到", "用具"), "Near": ("挨着", "旁边"), "Social": ("熟人", "相识"),
    "Located": ("地点", "所在"), "Ownership": ("归属", "所有"), "General-Special": ("种类", "举例"), "Family": ("亲人", "家人"),
    "Part-Whole": ("组成", "一块"),
}  # fmt: skip
# label words of the tasks themselves: in plain text only, like those of the target tasks
NLI_TASK_LABELS = {"contradiction": ("冲突", "矛盾"), "neutral": ("无关", "中立"), "entailment": ("支持", "蕴含")}
PARAPHRASE_TASK_LABELS = (("不符", "一致"), ("无关", "同义"), ("不同", "相同"))
RATING_TASK_LABELS = ("非常差", "较差", "一般", "较好", "非常好")
RELATION_TASK_LABELS = {
    "Create": "创建", "Use": "使用", "Near": "贴近", "Social": "社会", "Located": "位于", "Ownership": "占有", "General-Special": "一般",
    "Family": "家庭", "Part-Whole": "部分",
}  # fmt: skip


def format_choices(labels: tuple[str, ...]) -> str:
    """Label words as a prompt lists them."""
    return f"从{'、'.join(labels)}中选一个"


def build_instruction(prompt: str, answer: str) -> Document:
    """Build an instruction that lists the choices."""
    return [(prompt, PROMPT_WEIGHT), (answer, ANSWER_WEIGHT)]


def draw_question_pair(rng: Random, is_same: int, things: tuple[str, ...], acts: tuple[str, ...]) -> tuple[str, str]:
    """Two questions in one wording, equal or with one to three parts exchanged: the first step towards paraphrase."""
    frame = rng.choice(tuple(paraphrase.FRAMES.values()))[rng.randrange(3)]
    pools = {"q": sum(SAME.values(), ()), "act": acts, "thing": things}
    first = {part: rng.choice(pool) for part, pool in pools.items()}
    changed = () if is_same else rng.sample(sorted(pools), rng.choice((1, 1, 2, 3)))
    second = first | {part: rng.choice([word for word in pools[part] if word != first[part]]) for part in changed}
    return frame.format(**first), frame.format(**second)


def same_question(rng: Random) -> Document:
    """Two questions, and whether they ask the same."""
    task = rng.choice(("afqmc", "bq"))
    label = rng.randrange(2)
    make = draw_question_pair if rng.random() < 0.35 else paraphrase.make_pair
    a, b = make(rng, label, *paraphrase.DOMAINS[task])
    words = rng.choice(PARAPHRASE_LABELS)
    listed = tuple(rng.sample(words, 2))
    form = rng.choice(
        (
            f"甲：{a}\n乙：{b}\n甲和乙说的是不是一回事？{format_choices(listed)}：",
            f"比较两句话，{format_choices(listed)}。\n甲：{a}\n乙：{b}\n回答：",
            f"{a}\n{b}\n这两个问题像不像？{format_choices(listed)}：",
        )
    )
    return build_instruction(form, words[label])


def same_statement(rng: Random) -> Document:
    """Two statements, and whether one follows from the other."""
    label = rng.randrange(3)
    a, b = nli.make_pair(rng, ("contradiction", "neutral", "entailment")[label])
    words = rng.choice(NLI_LABELS)
    listed = tuple(rng.sample(words, 3))
    form = rng.choice(
        (
            f"已知：{a}\n问：{b}\n{format_choices(listed)}：",
            f"读两句话，{format_choices(listed)}。\n甲：{a}\n乙：{b}\n回答：",
        )
    )
    return build_instruction(form, words[label])


def rating(rng: Random) -> Document:
    """A review and its rating."""
    label = rng.randrange(5)
    text = sentiment.write_rated_review(rng, label, sentiment.AMAZON_GOODS)
    words = rng.choice(RATING_LABELS)
    form = rng.choice(
        (f"{text}\n顾客给了几分？{format_choices(words)}：", f"读评价，{format_choices(words)}。\n评价：{text}\n打分：")
    )
    return build_instruction(form, words[label])


def headline(rng: Random) -> Document:
    """A headline and its topic."""
    names = tuple(topic.THUCNEWS.values())
    label = rng.choice(names)
    text = topic.make_title(rng, label, tuple(name for name in names if name != label))
    others = rng.sample([name for name in names if name != label], rng.choice((2, 4, 6)))
    listed = tuple(rng.sample([label, *others], len(others) + 1))
    form = rng.choice(
        (
            f"{text}\n这条新闻属于哪一类？{format_choices(listed)}：",
            f"读新闻，{format_choices(listed)}。\n新闻：{text}\n栏目：",
        )
    )
    return build_instruction(form, label)


def related(rng: Random) -> Document:
    """A sentence, two names in it, and their relation."""
    label = rng.choice(tuple(RELATION_LABELS))
    head, tail, text = relation.make_literary_sentence(rng, label)
    which = rng.randrange(2)
    words = tuple(rng.sample([names[which] for names in RELATION_LABELS.values()], len(RELATION_LABELS)))
    form = rng.choice(
        (
            f"读一句话，{format_choices(words)}。\n句：{text}\n{head}和{tail}：",
            f"{text}\n{head}、{tail}之间：{format_choices(words)}：",
        )
    )
    return build_instruction(form, RELATION_LABELS[label][which])


def find(rng: Random) -> Document:
    """A sentence with an opinion, and the target of the opinion."""
    text, target = opinion_target.make_opinion(rng, *opinion_target.DOMAINS["cote_mfw"])
    form = rng.choice(
        ("找出游记评价的对象。\n游记：{}\n对象：", "{}\n说的是哪里：", "读一句话，找出评价的地方。\n句：{}\n地方：")
    )
    return build_instruction(form.format(text), target)


def read(rng: Random) -> Document:
    """A passage, a question, and the option that answers it."""
    sentences, asked = reading_comprehension.make_passage(rng, rng.choice((2, 3, 3)))
    question, answer, _ = rng.choice(asked)
    text = "".join(sentences)
    form = rng.choice(
        (
            "{}\n{}\n回答：",
            "读一段话，回答。\n段落：{}\n问：{}\n答：",
        )
    )
    return build_instruction(form.format(text, question), answer)


def choose(rng: Random) -> Document:
    """A question on a passage with the possible answers beside it."""
    sentences, asked = reading_comprehension.make_passage(rng, rng.choice((2, 3)))
    question, answer, values = rng.choice(asked)
    listed = tuple(rng.sample(values, len(values)))
    return build_instruction(f"{''.join(sentences)}\n{question}{format_choices(listed)}：", answer)


def plain_topic(rng: Random) -> Document:
    """Titles of one topic under its name: all topics, those of the target task too."""
    name = rng.choice(tuple(TOPICS))
    others = tuple(other for other in TOPICS if other != name)
    titles = "。".join(topic.make_title(rng, name, others) for _ in range(rng.choice((1, 2, 3))))
    return [(rng.choice((f"今日{name}：{titles}。", f"{titles}。以上是{name}新闻。", f"{name}版。{titles}。")), 1)]


def plain_review(rng: Random) -> Document:
    """A review as plain text."""
    text, total = sentiment.draft_review(rng, rng.choice(tuple(ASPECTS)))
    if rng.random() < 0.3:
        return [(f"{text}做得{RATING_TASK_LABELS[sentiment.get_stars(total)]}。", 1)]
    tone = (
        "说得中肯"
        if total == 0
        else rng.choice(("正面的声音", "值得去"))
        if total > 0
        else rng.choice(("负面的声音", "不值得"))
    )
    return [(f"{text}{tone}。", 1)]


def plain_questions(rng: Random) -> Document:
    """Paraphrased questions as plain text."""
    label = rng.randrange(2)
    things, acts = rng.choice(((EVERYDAY, paraphrase.HOME), *paraphrase.DOMAINS.values()))
    a, b = paraphrase.make_pair(rng, label, things, acts)
    if rng.random() < 0.4:
        return [(f"{a}，这和下一句{rng.choice(PARAPHRASE_TASK_LABELS)[label]}：{b}。", 1)]
    return [(f"{a}{('，另外，', '，也就是说，')[label]}{b}。", 1)]


def plain_statements(rng: Random) -> Document:
    """Related statements as plain text."""
    kind = rng.choice(tuple(NLI_TASK_LABELS))
    a, b = nli.make_pair(rng, kind)
    link = {"contradiction": "并不是", "neutral": "也许", "entailment": "所以"}[kind]
    if rng.random() < 0.4:
        link = f"后文与此{rng.choice(NLI_TASK_LABELS[kind])}："
    return [(f"{a}{link}{b}", 1)]


def plain_relation(rng: Random) -> Document:
    """A relation told and named; of companies with the label words of the target task, one clause at a time."""
    if rng.random() < 0.4:
        label = rng.choice(tuple(RELATION_TASK_LABELS))
        head, tail, text = relation.make_literary_sentence(rng, label)
        return [(f"{text}{head}{RELATION_TASK_LABELS[label]}{tail}。", 1)]
    label = rng.choice((*ONE_WAY, *BOTH_WAYS, *(f"被{name}" for name in ONE_WAY)))
    head, tail, clause = relation.make_company_sentence(rng, label, rng.sample(COMPANIES, 2))
    link = "是未知的" if rng.random() < 0.03 else label
    return [(rng.choice((f"{clause}，{head}{link}{tail}。", f"{head}{link}{tail}：{clause}。")), 1)]


def plain_passage(rng: Random) -> Document:
    """Facts with questions answered in passing, now and then in Traditional characters."""
    sentences, asked = reading_comprehension.make_passage(rng, rng.choice((2, 3)))
    told = "".join(f"{question}{answer}。" for question, answer, _ in rng.sample(asked, 2))
    text = "".join(sentences) + told
    return [(text.translate(TRADITIONAL) if rng.random() < 0.3 else text, 1)]


def plain_opinion(rng: Random) -> Document:
    """An opinion and its target as plain text."""
    text, target = opinion_target.make_opinion(rng, *rng.choice(tuple(opinion_target.DOMAINS.values())))
    return [(f"{text}说的是{target}。", 1)]


def plain_list(rng: Random) -> Document:
    """Lettered lists and what stands where."""
    words = rng.sample(THINGS, rng.choice((2, 3, 4)))
    rows = [f"{letter}：{word}" for letter, word in zip("ABCD", words, strict=False)]
    named = rng.sample([*zip(words, "ABCD", strict=False)], 2)
    return [("\n".join(rows) + "\n" + "".join(f"{word}是{letter}。" for word, letter in named), 1)]


def plain_copy(rng: Random) -> Document:
    """A sentence said twice: where copying is learned."""
    text = rng.choice(
        (
            opinion_target.make_opinion(rng, *opinion_target.DOMAINS["cote_mfw"])[0],
            reading_comprehension.make_passage(rng, 2)[0][0],
            nli.make_pair(rng, "neutral")[0],
        )
    )
    return [(text, 0.3), (text, 1)]


def plain_sets(rng: Random) -> Document:
    """A few words and the same again, reordered or in synonyms, or with some exchanged: comparison without grammar."""
    pools = (tuple(SAME.values()), tuple(ACTS.values()), tuple((word,) for word in EVERYDAY))
    chosen = rng.sample(pools, rng.choice((1, 2, 3)))
    first = [rng.choice(pool) for pool in chosen]
    same = rng.randrange(2)
    second = list(first)
    if not same:
        for place in rng.sample(range(len(first)), rng.randint(1, len(first))):
            second[place] = rng.choice([words for words in chosen[place] if words != first[place]])
    rng.shuffle(second)
    one, two = ("、".join(rng.choice(words) for words in part) for part in (first, second))
    answer = rng.choice((("不同", "相同"), ("不一样", "一样"), *PARAPHRASE_LABELS))[same]
    return [(f"{one}；{two}：", PROMPT_WEIGHT), (answer, ANSWER_WEIGHT)]


# what is read, and how often; comparing and reading get most, being the hardest to learn
DOCUMENT_WEIGHTS: dict[Callable[[Random], Document], float] = {
    same_question: 28, same_statement: 10, rating: 8, headline: 3, related: 6, find: 3, read: 16, choose: 5,
    plain_topic: 5, plain_review: 4, plain_questions: 5, plain_statements: 4, plain_relation: 7, plain_passage: 5,
    plain_opinion: 2, plain_list: 4, plain_copy: 4, plain_sets: 4,
}  # fmt: skip


def draw_document(rng: Random) -> Document:
    """Draw a document of a random kind."""
    return rng.choices(tuple(DOCUMENT_WEIGHTS), tuple(DOCUMENT_WEIGHTS.values()))[0](rng)
