import io
from dataclasses import replace

import pytest
from rich.console import Console

import methods
from benchmark import claims, grid, profile
from benchmark.__main__ import entry
from benchmark.claims import ABOVE, ABSENT, FEW, META_LORA, OPEN, REACHES, REFUTED, SUPPORTED, TA_LORA, TRANSFER, Claim
from benchmark.profile import Profile

CHOICES = ("chnsent", "ocnli")
N = 60


@pytest.fixture
def one(small) -> Profile:
    """Two target tasks, one number of few shots, three seeds."""
    return replace(small, tasks=CHOICES, shots=(4,))


def fill(found: Profile, answered, right: dict[str, int], step: int = 7) -> None:
    """Every cell of these rows: so many of N answers right, others with each seed."""
    for planned in grid.plan(replace(found, methods=tuple(right))):
        cell = planned.cell
        if cell.stage != grid.TARGET or cell.task not in found.tasks:
            continue
        wrong = {(step * i + cell.seed) % N for i in range(N - right[cell.method])}
        answered(found, planned, [float(i not in wrong) for i in range(N)])


def judged(found: Profile, *wanted: Claim) -> list[claims.Finding]:
    return claims.judge(found, wanted)[0]


def above(row: str, other: str, **more) -> Claim:
    return Claim(**{"paper": TA_LORA, "row": row, "kind": ABOVE, "other": other, "shots": FEW} | more)


def test_an_advantage_beyond_doubt_is_supported_and_its_opposite_is_not(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    there, back = judged(one, above("lora", "prompt"), above("prompt", "lora"))
    assert (there.verdict, back.verdict) == (SUPPORTED, REFUTED)
    assert there.difference.mean == pytest.approx(0.4)
    assert there.p == pytest.approx(2 * there.difference.p(), abs=0)  # corrected for two claims of one paper


def test_a_difference_within_its_interval_is_open_and_says_what_would_have_been_found(one, answered):
    fill(one, answered, {"lora": 33})
    fill(one, answered, {"prompt": 30}, step=11)
    (found,) = judged(one, above("lora", "prompt"))
    assert found.verdict == OPEN
    assert found.detectable == found.difference.detectable()
    assert found.said == f"undecided at this size: finds {100 * found.detectable:.1f} points"
    _, twice = judged(one, above("lora", "prompt"), above("prompt", "lora"))
    assert twice.detectable == twice.difference.detectable(0.975) > found.detectable


def test_methods_that_are_the_same_reach_each_other_and_are_not_above(one, answered):
    fill(one, answered, {"lora": 40, "prompt": 40})
    over, up_to = judged(one, above("lora", "prompt"), above("lora", "prompt", kind=REACHES, paper=META_LORA))
    assert (over.verdict, up_to.verdict) == (REFUTED, SUPPORTED)
    fill(one, answered, {"lora": 20})
    assert [one.verdict for one in judged(one, above("lora", "prompt", kind=REACHES))] == [REFUTED]


def test_papers_are_corrected_apart(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30, "prefix": 31})
    wanted = [above("lora", "prompt"), above("prefix", "prompt"), above("lora", "prompt", paper=META_LORA)]
    first, _, other = judged(one, *wanted)
    assert first.p == pytest.approx(2 * other.p, abs=0)


def test_fewer_parameters_are_part_of_the_claim(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    (found,) = judged(one, above("lora", "prompt", fewer=True))
    assert found.said == "supported, but not at fewer parameters"  # as many
    assert found._replace(trained=(10, 20)).said == "supported"


def test_what_was_not_run_says_so_with_the_command(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    other = above("lora", "prefix", shots=16)
    absent, variant = judged(one, other, above("ta_lora", "ta_lora:no-gate"))
    assert (absent.verdict, variant.verdict, absent.difference) == (ABSENT, ABSENT, None)
    (said,) = claims.missing(one, [absent, variant], "--profile mine")
    assert "benchmark run --profile mine --methods lora,prefix,ta_lora,ta_lora:no-gate --shots 4,16" in said
    assert said.endswith("--set ta_lora:no-gate.gate=none")
    assert claims.missing(one, judged(one, above("lora", "prompt")), "") == []


def test_a_half_run_claim_is_not_run(one, answered):
    fill(one, answered, {"lora": 54})
    fill(replace(one, seeds=(0, 1)), answered, {"prompt": 30})
    assert [found.verdict for found in judged(one, above("lora", "prompt"))] == [ABSENT]


def test_one_seed_is_undecided(one, answered):
    alone = replace(one, seeds=(0,))
    fill(alone, answered, {"lora": 54, "prompt": 30})
    (found,) = judged(alone, above("lora", "prompt"))
    assert (found.verdict, found.said, found.p) == (OPEN, "undecided at this size: one seed", None)


def test_few_shot_is_the_mean_over_the_grids_few_shots(one, answered):
    wide = replace(one, shots=(4, 16, 50))
    fill(wide, answered, {"lora": 54, "prompt": 30})
    assert claims.few(wide) == (4, 16)
    assert claims.few(replace(one, shots=(50, "full"))) == (16,)
    (found,) = judged(wide, above("lora", "prompt"))
    assert found.difference.mean == pytest.approx(0.4)
    (mixed,) = judged(wide, above("lora", "prompt", shots=16, other_shots=50, tasks="all"))
    assert mixed.difference is not None


def test_a_row_of_the_profile_with_the_same_options_is_the_claimed_one(one):
    rows = ("ta_lora", "ta_lora:flat")
    own = replace(one, methods=rows, config={"ta_lora:flat": {"gate": "none"}})
    assert claims.named(own, "ta_lora:no-gate") == "ta_lora:flat"
    assert claims.named(one, "ta_lora:no-gate") == "ta_lora:no-gate"
    assert claims.named(own, "ta_lora:no-prompt") == "ta_lora:no-prompt"
    _, wide = claims.widened(own, claims.CLAIMS)
    assert wide.config["ta_lora:no-prompt"] == {"length": 0}
    assert "ta_lora:no-gate" not in wide.methods


def test_a_variant_that_the_profile_has_made_the_default_is_no_comparison(one, answered):
    tuned = replace(one, config={"ta_lora": {"slow": 1.0}})
    same, other = judged(tuned, above("ta_lora", "ta_lora:no-fast-slow"), above("ta_lora", "ta_lora:no-gate"))
    assert (same.verdict, same.said) == (claims.SAME, claims.SAME)
    assert other.verdict == ABSENT
    (said,) = claims.missing(tuned, [same, other], "")
    assert "no-fast-slow" not in said


def test_the_ablation_profiles_have_the_rows_that_are_claimed():
    for name in ("ta-lora-ablation", "meta-lora-ablation"):
        found = profile.load(name)
        own = [row for row in claims.VARIANTS if name.startswith(methods.method_of(row).replace("_", "-"))]
        assert own
        assert {claims.named(found, row) for row in own} <= set(found.methods)


def test_every_claim_names_rows_that_there_are_and_options_that_they_have():
    for claim in claims.CLAIMS:
        assert claim.paper in claims.REPORTED
        for row in (claim.row, claim.other):
            assert methods.method_of(row) in methods.NAMES
    for row, options in claims.VARIANTS.items():
        grid.options(replace(profile.load("demo"), config={row: options}), row)  # raises where one is unknown
    assert {claim.paper for claim in claims.CLAIMS} == {TA_LORA, META_LORA, TRANSFER} == set(claims.REPORTED)


def test_the_page_states_every_claim_beside_what_was_reported(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30, "shared_lora": 59})
    out = io.StringIO()
    path = claims.make(one, "--profile mine", Console(file=out, width=150))
    text, shown = path.read_text(), " ".join(out.getvalue().split())
    assert text.count("\n| ") == len(claims.CLAIMS) + 2 * len(claims.REPORTED)
    (found,) = [f for f in claims.judge(one)[0] if f.claim.row == "shared_lora"]
    row = f"| shared_lora above lora, 4 shots, target tasks | {claims.points(found.difference)} | {found.p:.2g} |"
    assert row in text
    assert "| not run |" in text
    for said in (text, shown):
        assert "No table of the paper is known to us." in said
        assert "python -m benchmark run --profile mine --methods ta_lora,prompt,adapter" in said
    assert "reconstructions" in text


def test_the_verb_exits_with_0_and_repeats_the_flags_it_was_given(one, answered, capsys):
    words = ["--profile", "smoke", "--backbone", one.backbone.name, "--results", str(one.folder), "--seeds", "0,1,2"]
    words += ["--tasks", ",".join(CHOICES), "--set", "lora.rank=4"]
    assert entry(["claims", *words]) == 2
    assert "no results in" in capsys.readouterr().err
    fill(one, answered, {"lora": 54})
    assert entry(["claims", *words]) == 0
    out = capsys.readouterr().out
    assert f"run --profile smoke --backbone {one.backbone.name} --tasks chnsent,ocnli --seeds 0,1,2 --results" in out
    assert "--set lora.rank=4 --methods" in out
    assert (one.folder / "report" / "claims.md").is_file()
