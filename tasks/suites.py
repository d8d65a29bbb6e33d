"""Suites: sets of source tasks and target tasks that belong together.

A grid and a results folder have one suite. A profile names one of these, or declares its own with the same fields;
its tasks are names of the index or `package.module:Class`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """A set of tasks. Source tasks are used in source training; target tasks are never used there."""

    name: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    about: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """All task names, sources first."""
        return self.sources + self.targets

    def get_role(self, task_name: str) -> str | None:
        """Return "source" or "target", or None if the task is not in this suite."""
        if task_name in self.sources:
            return "source"
        return "target" if task_name in self.targets else None


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
