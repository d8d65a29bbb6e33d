"""Suites: which tasks belong together, which of them are learned from, and which are transferred to.

A grid is of one suite, and a folder of results too. A profile names one of these, or declares its own with the same
fields; its tasks are names of the index or `package.module:Class`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """Source tasks may be learned from first; target tasks are never seen in source training."""

    name: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    about: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.sources + self.targets

    def get_role(self, task_name: str) -> str | None:
        """Of a task: source or target; None for one of elsewhere."""
        return "source" if task_name in self.sources else "target" if task_name in self.targets else None


CHINESE = Suite(
    "chinese",
    ("afqmc", "amazon", "thucnews", "bq", "cmnli", "cmrc2018", "sanwen", "cote_mfw"),
    ("chnsent", "tnews", "ocnli", "lcqmc", "drcd", "c3", "cote_bd", "finre"),
    "sixteen Chinese tasks in seven families, after MP2 and TA-LoRA; sources and targets are different data sets",
)
MULTILINGUAL = Suite(
    "multilingual",
    ("xnli_en", "xnli_zh", "paws_en", "paws_zh"),
    ("xnli_de", "xnli_es", "xnli_fr", "paws_de", "paws_es", "paws_fr"),
    "inference and paraphrase in five languages, after MeTA-LoRA's second scenario (reconstructed); "
    "sources and targets are different languages",
)
SUITES = {suite.name: suite for suite in (CHINESE, MULTILINGUAL)}
