"""Multilingual tasks: XNLI and PAWS-X, one task per language.

The second scenario of MeTA-LoRA (arXiv 2510.11598) is multilingual learning. Its abstract names neither data sets nor
languages; this choice is our reconstruction. English and Chinese are sources, German, Spanish and French are targets.

The training pairs of all languages are translations of the same English pairs. Therefore a source task contains the
training pairs of a target task in another language, but no test pairs.
Local files: the splits of the hub data set written by `to_json`, as `xnli_de/train.jsonl`, `validation.jsonl` and
`test.jsonl`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tasks.base import Task, clean_text
from tasks.core.formats import parse_json_lines
from tasks.core.sources import File, Hub
from tasks.nli import NLI
from tasks.paraphrase import Paraphrase

HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
FILES = tuple(File(part, (f"{split}.jsonl",), parse_json_lines) for part, split in HUB_SPLITS.items())


class Language(NamedTuple):
    """Instructions and label words of a language.

    In languages with spaces between words, the answer is on its own line after the cue.
    """

    code: str
    role: str
    no: str
    maybe: str
    yes: str
    inference_question: str
    paraphrase_question: str
    template_ending: str


ENGLISH = Language(
    "en", "source", "no", "maybe", "yes",
    "Does the second sentence follow from the first? Answer no, maybe or yes.",
    "Do the two sentences mean the same? Answer no or yes.",
    "\nFirst: {}\nSecond: {}\nAnswer:\n",
)  # fmt: skip
CHINESE = Language(
    "zh", "source", "否", "可能", "是",
    "由第一句能推出第二句吗？从否、可能、是中选一个。", "两句话的意思相同吗？从否、是中选一个。",
    "\n第一句：{}\n第二句：{}\n回答：",
)  # fmt: skip
GERMAN = Language(
    "de", "target", "nein", "vielleicht", "ja",
    "Folgt der zweite Satz aus dem ersten? Antworte nein, vielleicht oder ja.",
    "Bedeuten die beiden Sätze dasselbe? Antworte nein oder ja.",
    "\nErster: {}\nZweiter: {}\nAntwort:\n",
)  # fmt: skip
SPANISH = Language(
    "es", "target", "no", "quizás", "sí",
    "¿Se sigue la segunda frase de la primera? Responde no, quizás o sí.",
    "¿Significan lo mismo las dos frases? Responde no o sí.",
    "\nPrimera: {}\nSegunda: {}\nRespuesta:\n",
)  # fmt: skip
FRENCH = Language(
    "fr", "target", "non", "peut-être", "oui",
    "La deuxième phrase découle-t-elle de la première ? Répondez non, peut-être ou oui.",
    "Les deux phrases ont-elles le même sens ? Répondez non ou oui.",
    "\nPremière : {}\nDeuxième : {}\nRéponse :\n",
)  # fmt: skip


class TranslatedTask(Task):
    """Base class of data sets in several languages; a subclass with `language=` is the task of that language."""

    files = FILES
    corpus: str  # prefix of the task names
    question_field: str  # field of Language with the instruction
    answer_fields: dict[str, str]  # raw label -> field of Language with the label word
    hub: Hub  # the config is set to the language

    def __init_subclass__(cls, language: Language | None = None) -> None:
        if language is None:  # a base class, or a subclass of one of the tasks below
            return
        cls.name = f"{cls.corpus}_{language.code}"
        cls.role = language.role
        cls.__doc__ = cls.__base__.__doc__
        cls.words = {label: getattr(language, word) for label, word in cls.answer_fields.items()}
        cls.template = getattr(language, cls.question_field) + language.template_ending
        cls.hub = cls.hub._replace(config=language.code)


class XNLI(TranslatedTask, NLI):
    """XNLI (Conneau et al. 2018): machine-translated training pairs of MNLI, and 5,010 human-translated test pairs."""

    corpus = "xnli"
    question_field = "inference_question"
    answer_fields = {"contradiction": "no", "neutral": "maybe", "entailment": "yes"}
    pair_columns = ("premise", "hypothesis")
    aliases = {"0": "entailment", "1": "neutral", "2": "contradiction"}  # files written by `to_json` contain ids
    licence = "CC BY-NC 4.0"
    hub = Hub("facebook/xnli", None, "b8dd5d7af51114dbda02c0e3f6133f332186418e", HUB_SPLITS)


class PAWSX(TranslatedTask, Paraphrase):
    """PAWS-X (Yang et al. 2019): 49,401 machine-translated training pairs and 2,000 human-translated test pairs.

    Some pairs were never translated and have an empty sentence; they are dropped.
    """

    corpus = "paws"
    question_field = "paraphrase_question"
    answer_fields = {"0": "no", "1": "yes"}
    licence = "free use for any purpose; Google asks to be named as the source"
    hub = Hub("google-research-datasets/paws-x", None, "4cd8187c404bda33cb1f62b49b001115862acf37", HUB_SPLITS)

    def read_records(self, part: str) -> Iterator[dict]:
        """Yield the records whose two sentences are not empty."""
        for row in super().read_records(part):
            if clean_text(row["sentence1"]) and clean_text(row["sentence2"]):
                yield row
            else:
                self.count_dropped(part, "empty sentence")


# fmt: off
class XNLIEnglish(XNLI, language=ENGLISH): ...
class XNLIChinese(XNLI, language=CHINESE): ...
class XNLIGerman(XNLI, language=GERMAN): ...
class XNLISpanish(XNLI, language=SPANISH): ...
class XNLIFrench(XNLI, language=FRENCH): ...
class PAWSXEnglish(PAWSX, language=ENGLISH): ...
class PAWSXChinese(PAWSX, language=CHINESE): ...
class PAWSXGerman(PAWSX, language=GERMAN): ...
class PAWSXSpanish(PAWSX, language=SPANISH): ...
class PAWSXFrench(PAWSX, language=FRENCH): ...
