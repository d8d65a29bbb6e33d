"""What `gpu-check` found, as Markdown; where nothing was measured it says so."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.types import UsageError

BEGIN, END = "<!-- gpu-check -->", "<!-- /gpu-check -->"
NONE = "not measured"
VERSIONS = ("torch", "transformers", "lightning", "peft")
GB = 1e9


def put(said: str, path: Path) -> None:
    """The table between the markers of a document; the rest of it stays."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"{path}: no {BEGIN} and {END}; put both where the table belongs")
    path.write_text(f"{before}{BEGIN}\n{said.strip()}\n{END}{after}", encoding="utf-8")


def markdown(found: dict[str, Any]) -> str:
    """All tables of a run, or of none at all ({})."""
    checks = {name: check["found"] for name, check in found.get("checks", {}).items()}
    parts = [
        where(found), targets(checks), learned("methods", checks), learned("methods-large", checks),
        two_systems(checks.get("sources", {})), exactness(checks), outcome(found),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def where(found: dict[str, Any]) -> str:
    if not found:
        return "No GPU was at hand: nothing below was measured. `make gpu-check` fills it in."
    machine, versions = found["environment"], found["environment"]["packages"]
    named = ", ".join(f"{name} {versions[name]}" for name in VERSIONS if name in versions)
    size = f", {found['memory_bytes'] / 2**30:.0f} GiB" if found.get("memory_bytes") else ""
    commit = (
        f", commit {machine['commit'][:10]}{' and changes' if machine['has_uncommitted_changes'] else ''}"
        if machine["commit"]
        else ""
    )
    small, large = found["plan"]["shapes"]
    return f"{machine['device']}{size}; {named}{commit}. Random weights of {small} and {large} shape in bf16."


def rows(header: Sequence[str], of: Sequence[Sequence[str]], left: int = 1) -> str:
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *of))


def targets(checks: dict[str, Any]) -> str:
    """The figures that were asked for."""
    race, share, device = checks.get("race", {}), checks.get("share", {}), checks.get("device", {})
    training, scoring = share.get("training", {}).get("lora"), share.get("scoring", {}).get("lora")
    best = max(scoring.values(), key=lambda one: one["share"]) if scoring else None
    shape = checks.get("methods-large", {}).get("shape", "7B")
    found = [
        ("few-shot cells packed against the naive loop", "7.5x", times(race, "packed")),
        ("the same, cell by cell", "", times(race, "solo")),
        (f"{shape} training (lora), share of the bf16 peak", "45 %", percent(training)),
        (f"{shape} scoring (lora), share of the bf16 peak", "60 %", percent(best)),
        (f"{shape} training (lora), tokens per second", "", number(training, "tokens_per_second")),
        (f"{shape} scoring (lora), tokens per second", "", number(best, "tokens_per_second")),
        ("bf16 matrix product, TFLOP/s", "", f"{device['flops'] / 1e12:.0f}" if "flops" in device else NONE),
        ("copy in memory, TB/s", "", f"{device['bytes_per_second'] / 1e12:.2f}" if "flops" in device else NONE),
    ]
    return rows(("figure", "target", "measured"), found)


def times(race: dict[str, Any], way: str) -> str:
    if way not in race or "times" not in race[way]:
        return NONE
    return f"{race[way]['times']:.1f}x ({race[way]['cells_per_hour']:.0f} cells per hour)"


def percent(found: dict[str, Any] | None) -> str:
    return f"{100 * found['share']:.0f} %" if found else NONE


def number(found: dict[str, Any] | None, key: str) -> str:
    return f"{found[key]:,.0f}".replace(",", " ") if found else NONE


def learned(name: str, checks: dict[str, Any]) -> str:
    """A row for each method: memory beyond the backbone, and speed alone and packed."""
    check = checks.get(name, {})
    if not check.get("methods"):
        return ""
    size, found = check["size"], []
    for method, said in check["methods"].items():
        if "solo" not in said:
            found.append((method, said.get("skipped") or "; ".join(said["wrong"]), *[""] * 6))
            continue
        solo, packed = said["solo"], said.get("packed")
        found.append((
            method, str(said["trained"]), gigabytes(solo["held_bytes"], 3), gigabytes(solo["peak_bytes"]),
            gigabytes(packed["peak_bytes"]) if packed else "", f"{solo['tokens_per_second']:.0f}",
            f"{packed['tokens_per_second']:.0f}" if packed else "", f"{said['worth']:.1f}x" if packed else "",
        ))  # fmt: skip
    header = ("method", "trained", "adapter, GB", "step, GB", f"step of {size['pack']}, GB", "tokens/s",
              f"tokens/s of {size['pack']}", "packed")  # fmt: skip
    title = (
        f"{check['shape']} shape, {check['weights_bytes'] / GB:.1f} GB of weights resident; {size['rows']} rows of up to "
        f"{size['length']} tokens a cell. Memory is beyond the weights; packed: cells per second against alone."
    )
    return f"{title}\n\n{rows(header, found)}"


def gigabytes(size: int | None, places: int = 2) -> str:
    return NONE if size is None else f"{size / GB:.{places}f}"


def two_systems(check: dict[str, Any]) -> str:
    """What TA-LoRA and MeTA-LoRA take on their sources."""
    found = [
        (f"{name}, stage {stage}", str(said["trained"]), str(said["rows"]), f"{said['seconds']:.3f}",
         f"{said['tokens_per_second']:.0f}", gigabytes(said.get("peak_bytes")))
        for name in ("ta_lora", "meta_lora") for stage, said in check.get(name, {}).items()
    ]  # fmt: skip
    if not found:
        return ""
    text = rows(("on eight sources", "trained", "rows a step", "seconds a step", "tokens/s", "step, GB"), found)
    kept = check.get("ta_lora, keys and values")
    return text + (f"\n\nScoring with TA-LoRA's keys and values kept: {kept['times']:.2f}x." if kept else "")


def exactness(checks: dict[str, Any]) -> str:
    """How many proofs hold, and the largest distances in bf16."""
    lines = []
    if proofs := checks.get("proofs"):
        verdicts = Counter(why if why == "holds" else why.partition(":")[0] for said in proofs.values()
                           for why in said.values() if why == "holds" or why.startswith("fails"))  # fmt: skip
        lines.append(
            f"Proofs in fp32 on the device: {verdicts['holds']} hold, {verdicts['fails']} fail ({len(proofs)} methods)."
        )
    if pack := checks.get("pack"):
        most = {key: max((said[key], name) for name, said in pack.items() if key in said)
                for key in ("pack", "padding", "cache") if any(key in said for said in pack.values())}  # fmt: skip
        said = ", ".join(f"{key} {far:.3f} ({name})" for key, (far, name) in most.items())
        lines.append(f"Largest relative distances in bf16 over {len(pack)} methods (gradients, hidden states): {said}.")
    for name, said in checks.get("kernels", {}).items():
        if "skipped" in said:
            lines.append(f"Attention seam, {name}: {said['skipped']}.")
        else:
            exact = "g = 0 is the backbone to the bit" if said["g = 0 is the backbone"] else "g = 0 changes bits"
            lines.append(f"Attention seam, {name}: {exact}; against plain math {said['distance']:.4f}.")
    return "\n".join(f"- {line}" for line in lines)


def outcome(found: dict[str, Any]) -> str:
    """What held, and why the rest did not."""
    checks = found.get("checks", {})
    bad = [
        f"- {name}: {said['state']}, {said.get('reason', '')}"
        for name, said in checks.items()
        if said["state"] != "held"
    ]
    held = sum(said["state"] == "held" for said in checks.values())
    return "\n".join([f"{held} of {len(checks)} checks held.", *bad]) if checks else ""
