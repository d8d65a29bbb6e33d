"""The code blocks of README.md and docs/*.md, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SHELL = ("bash", "sh", "shell", "console")
NOT_RUN = "not run:"
FENCE = re.compile(r"^ *(`{3,}|~{3,}) *(\w*)")
COMMENT = re.compile(r"^ *<!-- *(.*?) *-->$")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ASSIGNMENT = re.compile(r"[A-Z_][A-Z_0-9]*=")
ENDS = (";", "&", "&&", "|", "||")  # of a command


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A fenced block: what it says, the HTML comment above it, and the plain text block that follows at once."""

    page: str
    line: int
    language: str
    text: str
    comment: str
    answer: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not run; empty: it is."""
        return self.comment.removeprefix(NOT_RUN).strip() if self.comment.startswith(NOT_RUN) else ""

    @property
    def refused(self) -> str:
        """The error that the page says this ends in; empty: it does not."""
        return self.answer if self.answer.startswith("error: ") else ""


def blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if not opened:
            number += 1
            continue
        end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == opened[1])
        text = "\n".join(lines[number + 1 : end]) + "\n"
        found.append((number, end, opened[2], text, above(lines, number)))
        number = end + 1
    made = []
    for place, (start, end, language, text, comment) in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        follows = after and after[2] == "text" and not "".join(lines[end + 1 : after[0]]).strip()
        made.append(Block(title(page), start + 1, language, text, comment, after[3] if follows else ""))
    return made


def above(lines: list[str], number: int) -> str:
    """The HTML comment on the line before, blank lines aside."""
    while number and not lines[number - 1].strip():
        number -= 1
    found = COMMENT.match(lines[number - 1]) if number else None
    return found[1] if found else ""


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments."""
    kept, fence = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        opened = FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opened:
            fence = opened[1]
        else:
            kept.append(line)
    return re.sub(r"(?s)<!--.*?-->", "", "\n".join(kept))


def inline(page: Path) -> list[str]:
    """The code spans of a page, each on one line."""
    return [" ".join(span.split()) for span in INLINE.findall(prose(page))]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block: without prompts, comments, assignments in front and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in ENDS:
                words.append(word)
                continue
            words = words[: words.index(">")] if ">" in words else words
            while words and ASSIGNMENT.match(words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
