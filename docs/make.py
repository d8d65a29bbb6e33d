"""Fills in what the pages say of methods, tasks and profiles: `python docs/make.py`, which `make docs` calls first.

What stands between `<!-- made:NAME -->` and `<!-- /made -->` is made here, from docstrings, options and the loaders
themselves; the rest of a page is written by hand and stays. tests/docs says when a page is behind the code.
"""
# ruff: noqa: E701  (a formula stands beside its methods)

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import methods
import tasks
from benchmark.config import loading
from benchmark.grid import code_hash, data_hash, planner, specs
from benchmark.system import disk_cache
from benchmark.system.formatting import format_count
from methods.core.config import MethodConfig

DOCS = Path(__file__).parent
REGION = re.compile(r"(?s)(<!-- made:([^>]+?) -->\n).*?(<!-- /made -->)")
SPECIAL = re.compile(r"(?<!\*)\*(?!\*)|(?<!\w)_|_(?!\w)|[<>]")
OPTION = re.compile(r"^    (\w+): [^=]+ = .+?  # (.+)$")
HERE = {name: page for page, names in {
    "methods-controls.md": "zero_shot majority head_only",
    "methods-single.md": "full bitfit adapter lora dora prompt prefix llama_adapter peft",
    "methods-prompts.md": "spot_generic spot attempt mpt ta_lora",
    "methods-loras.md": "shared_lora hydra_lora mtl_lora moe_lora meta_lora",
}.items() for name in names.split()}  # fmt: skip


def made(text: str) -> str:
    """A page with its regions made anew."""

    def fill(region: re.Match) -> str:
        kind, *names = region[2].split()
        return f"{region[1]}\n{MAKERS[kind](*names).strip()}\n\n{region[3]}"

    return REGION.sub(fill, text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> str:
    """`right`: so many last columns are numbers."""
    rule = ["---"] * (len(header) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


# -------------------------------------------------------------------- how many numbers


class Shape(NamedTuple):
    """Of a backbone: width, layers, heads, heads of keys and values, size of a head, MLP width, vocabulary."""

    d: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool = True
    biases: bool = True  # on q, k and v
    norms: bool = False  # on queries and keys

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of q, k, v and o of all layers."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        return ((self.d, q), (self.d, kv), (self.d, kv), (q, self.d)) * self.layers


QWEN = {
    "Qwen2.5-0.5B": Shape(896, 24, 14, 2, 64, 4864, 151936),
    "Qwen2.5-1.5B": Shape(1536, 28, 12, 2, 128, 8960, 151936),
    "Qwen2.5-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, tied=False),
}


@cache
def tiny() -> Shape:
    """The embedded backbone's, from its configuration."""
    c = json.loads((Path(methods.__file__).parent / "tiny/config.json").read_text())
    names = (
        "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size"
    )
    return Shape(*(c[name] for name in names.split()), c["tie_word_embeddings"], c.get("attention_bias", False), True)


def full(s: Shape) -> int:
    inside = sum(i * o for i, o in s.linears) + s.layers * (3 * s.d * s.mlp + 2 * s.d)
    biases = bias(s) if s.biases else 0
    return s.vocabulary * s.d * (1 if s.tied else 2) + inside + biases + s.norms * s.layers * 2 * s.head + s.d


def bias(s: Shape) -> int:
    return s.layers * (s.heads + 2 * s.kv_heads) * s.head


def low_rank(s: Shape, r: int) -> int:
    return sum(r * (i + o) for i, o in s.linears)


def trained(name: str, s: Shape) -> int:
    """Numbers that learn on one target with the default options: the closed forms of the docstrings."""
    c = specs.get_method_spec(name).options
    # fmt: off
    match name:
        case "full": return full(s)
        case "bitfit": return bias(s)
        case "adapter":
            m = s.d // c["reduction"]
            return 2 * s.layers * (2 * s.d * m + m + s.d)
        case "lora" | "shared_lora" | "meta_lora": return low_rank(s, c["rank"])
        case "dora": return low_rank(s, c["rank"]) + sum(o for _, o in s.linears)
        case "prompt" | "spot_generic" | "spot": return c["length"] * s.d
        case "prefix": return 2 * c["length"] * s.layers * s.kv_heads * s.head
        case "llama_adapter": return max(1, s.layers - 2) * (c["length"] * s.d + s.heads)
        case "peft": return sum(8 * (i + o) for place, (i, o) in enumerate(s.linears) if place % 4 in (0, 2))  # q, v
        case "attempt": return c["length"] * s.d + 2 * c["inner"] * s.d + 2 * s.d
        case "mpt": return c["length"] * s.d + c["rank"] * (c["length"] + s.d)
        case "ta_lora": return c["length"] * s.d + s.layers * (c["tokens"] * c["rank"] + s.heads)
        case "hydra_lora":
            r, n = c["rank"], c["heads"]
            return sum(r * i + n * r * o + n * i for i, o in s.linears)
        case "mtl_lora": return len(s.linears) * (c["rank"] ** 2 + c["up_projections"])
        case "moe_lora": return 64 + 64 * c["experts"]
    # fmt: on
    return 0


# -------------------------------------------------------------------- methods


def every_method() -> str:
    rows = []
    for name in methods.NAMES:
        facts = specs.get_method_spec(name)
        stages = " > ".join(stage.name for stage in facts.stages) if facts.uses_gradient_descent else "none"
        rests = f"{facts.dependency.method_name} on each source" if facts.dependency else ""
        link = f"[{name}]({HERE[name]}#{name})"
        packs = "yes" if facts.is_packable and facts.uses_gradient_descent else ""
        merges = "yes" if facts.is_mergeable else ""
        rows.append((link, facts.trained_part, stages, rests, packs, merges, facts.paper))
    return table(("method", "what trains", "stages", "depends on", "packs", "merges", "origin"), rows)


def every_count() -> str:
    shapes = {"tiny": tiny(), **QWEN}
    rows = [(name, *(format_count(trained(name, shape)) for shape in shapes.values()))
            for name in methods.NAMES if specs.get_method_spec(name).uses_gradient_descent]  # fmt: skip
    return table(("method", *shapes), rows, right=len(shapes))


def one_method(name: str) -> str:
    facts, kind = specs.get_method_spec(name), methods.load_method(name)
    source = Path(inspect.getsourcefile(kind)).relative_to(DOCS.parent).as_posix()
    paper = f"**Origin:** {facts.paper}. " if facts.paper else ""
    said = [f"**What trains:** {facts.trained_part}.", f"{paper}**Code:** [{source}](../{source})."]
    home = Path(source).stem  # a file of two methods is told once, or, where it only frames them, by its classes
    words = inspect.getdoc(sys.modules[kind.__module__] if home == name else kind)
    if home in methods.NAMES and home != name:
        words = f"`{home}` and this one are one text: it stands there."
    return "\n\n".join([*said, *markdown(words), options(kind)])


def markdown(words: str) -> Iterator[str]:
    """A docstring's paragraphs; lines that are indented, or one that is an equation alone, as they stand."""
    for paragraph in re.split(r"\n\s*\n", words):
        lines = paragraph.splitlines()
        chunk: list[str] = []
        for number, line in enumerate(lines):
            chunk.append(line)
            following = lines[number + 1] if number + 1 < len(lines) else None
            if following is None or following.startswith("  ") != line.startswith("  "):
                text = dedent("\n".join(chunk))
                shown = line.startswith("  ") or (len(lines) == 1 and " = " in line and not line.endswith("."))
                yield f"```text\n{text}\n```" if shown else escaped(text)
                chunk = []


def escaped(text: str) -> str:
    """Plain words in Markdown: stars, lines below and angles mean themselves, but not within `code`."""
    parts = text.split("`")
    parts[::2] = [SPECIAL.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts)


def options(kind: type) -> str:
    """Names, defaults and meanings, less what every method has at the same default."""
    found, said = kind.Config(), comments(kind.Config)
    common = {name: getattr(MethodConfig(), name) for name in MethodConfig.__dataclass_fields__}
    rows = [(f"`{name}`", f"`{shown(getattr(found, name))}`", said.get(name, "").replace("|", "\\|"))
            for name in found.__dataclass_fields__ if common.get(name, ...) != getattr(found, name)]  # fmt: skip
    return table(("option", "default", ""), rows) if rows else "It has no options of its own."


def shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)


def comments(kind: type) -> Mapping[str, str]:
    """Option -> the comment behind it, those of a subclass first."""
    found: dict[str, str] = {}
    for cls in kind.__mro__:
        if issubclass(cls, MethodConfig):
            for line in dedent(inspect.getsource(cls)).splitlines():
                if option := OPTION.match(line):
                    found.setdefault(option[1], option[2])
    return found


def common_options() -> str:
    return table(("option", "default"), [(f"`{name}`", f"`{shown(getattr(MethodConfig(), name))}`")
                                         for name in MethodConfig.__dataclass_fields__])  # fmt: skip


# -------------------------------------------------------------------- tasks and profiles


def every_task(*names: str) -> str:
    rows = []
    for name in names:
        facts = specs.get_task_spec(name)
        labels = str(len(facts.words) or "")
        said = [getattr(facts, key) for key in ("role", "family", "form", "metric", "licence")]
        rows.append((f"[{name}](#{name})", *said[:3], labels, *said[3:]))
    return table(("task", "role", "family", "form", "labels", "metric", "licence"), rows)


def one_task(name: str) -> str:
    code = (
        name,
        specs.get_task_spec(name).code_hash,
        code_hash.hash_code("tasks.validation.describe"),
        data_hash.hash_backbone("tiny", None),
    )
    key = ["described", *code, data_hash.hash_records(name, "sample", None)]
    return f"```text\n{disk_cache.load_or_compute(key, lambda: described(name))}\n```"


def described(name: str) -> str:
    """What `benchmark describe` prints, less the version of the generators' code."""
    from methods.core.backbone import load_tokenizer
    from methods.core.backbone_files import find_or_download_backbone
    from tasks.validation.describe import describe_task

    found = describe_task(tasks.load_task(name)(load_tokenizer(find_or_download_backbone("tiny"), "tiny")))
    found = re.sub(r"(?m)^(source .*), version \w+$", r"\1", found)
    return "\n".join(line.rstrip() for line in found.splitlines())


def every_profile() -> str:
    found = [loading.load_profile(name) for name in loading.list_presets()]
    rows = [
        (f"`{p.name}`", p.about, p.backbone.name, p.source, f"{len([*planner.iterate_table_cells(p)]):,}")
        for p in found
    ]
    return table(("profile", "for", "backbone", "records", "cells"), rows, right=1)


# -------------------------------------------------------------------- rooms


def load_rooms() -> dict[str, str]:
    """Room -> its job, in the order in which rooms may import each other."""
    return dict(json.loads((DOCS / "rooms.json").read_text(encoding="utf-8")))


def list_modules(room: str) -> list[str]:
    """Modules that stand in the folder of a room itself."""
    folder = DOCS.parent.joinpath(*room.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def every_room() -> str:
    rows = [
        (f"`{room}`", job, ", ".join(list_modules(room)).replace("__", r"\_\_")) for room, job in load_rooms().items()
    ]
    return table(("room", "job", "modules"), rows)


def find_room_imports() -> set[tuple[str, str]]:
    """(room, imported room), of all imports in the code."""
    rooms = load_rooms()

    def find_room(module: str) -> str | None:
        matching = [room for room in rooms if module == room or module.startswith(f"{room}.")]
        return max(matching, key=len, default=None)

    pairs = set()
    for room in rooms:
        for name in list_modules(room):
            imported = code_hash.parse_module(f"{room}.{name}")[1]
            pairs |= {(room, other) for other in map(find_room, imported) if other and other != room}
    return pairs


def draw_rooms() -> str:
    """The picture of architecture.md: a row and a column for each room, a square where the row imports the column."""
    rooms, pairs = list(load_rooms()), find_room_imports()
    size, left, top = 18, 210, 150
    width, height = left + size * len(rooms) + 20, top + size * len(rooms) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for row, room in enumerate(rooms):
        y, x = top + size * row, left + size * row
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{room}</text>')
        parts.append(f'<text transform="translate({x + 13},{top - 8}) rotate(-60)">{room}</text>')
        for column, other in enumerate(rooms):
            colour = "#ddd" if row == column else "#3b6ea5" if (room, other) in pairs else "none"
            place = f'x="{left + size * column}" y="{y}" width="{size}" height="{size}"'
            parts.append(f'<rect {place} fill="{colour}" stroke="#ccc"/>')
    return "\n".join([*parts, "</svg>", ""])


MAKERS = {
    "rooms": every_room,
    "methods": every_method,
    "counts": every_count,
    "method": one_method,
    "options": common_options,
    "tasks": every_task,
    "task": one_task,
    "profiles": every_profile,
}


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := made(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(f"made anew: {page.name}")
    picture = DOCS / "architecture.svg"
    if not picture.exists() or picture.read_text(encoding="utf-8") != draw_rooms():
        picture.write_text(draw_rooms(), encoding="utf-8")
        print(f"made anew: {picture.name}")


if __name__ == "__main__":
    main()
