import io
from dataclasses import replace

import pytest
from rich.console import Console

import methods
from benchmark.cli.main import main
from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.grid import cells, planner
from benchmark.reporting import claims
from benchmark.reporting.claims import (
    ABOVE,
    FEW_SHOT,
    META_LORA,
    NOT_RUN,
    NOT_SUPPORTED,
    REACHES,
    SUPPORTED,
    TA_LORA,
    TRANSFER,
    UNDECIDED,
    Claim,
)

CHOICES = ("chnsent", "ocnli")
N = 60


@pytest.fixture
def one(small) -> Profile:
    """Two target tasks, one number of few shots, three seeds."""
    return replace(small, tasks=CHOICES, shots=(4,))


def fill(found: Profile, answered, right: dict[str, int], step: int = 7) -> None:
    """Every cell of these rows: so many of N answers right, others with each seed."""
    for planned in planner.plan_grid(replace(found, methods=tuple(right))):
        cell = planned.cell
        if cell.stage != cells.TARGET_STAGE or cell.task not in found.tasks:
            continue
        wrong = {(step * i + cell.seed) % N for i in range(N - right[cell.method])}
        answered(found, planned, [float(i not in wrong) for i in range(N)])


def judged(found: Profile, *wanted: Claim) -> list[claims.ClaimResult]:
    return claims.evaluate_claims(found, wanted)[0]


def above(row: str, other: str, **more) -> Claim:
    return Claim(
        **{"paper": TA_LORA, "variant": row, "relation": ABOVE, "other_variant": other, "shots": FEW_SHOT} | more
    )


def test_an_advantage_beyond_doubt_is_supported_and_its_opposite_is_not(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    there, back = judged(one, above("lora", "prompt"), above("prompt", "lora"))
    assert (there.verdict, back.verdict) == (SUPPORTED, NOT_SUPPORTED)
    assert there.difference.mean == pytest.approx(0.4)
    assert there.p_value == pytest.approx(
        2 * there.difference.compute_p_value(), abs=0
    )  # corrected for two claims of one paper


def test_a_difference_within_its_interval_is_open_and_says_what_would_have_been_found(one, answered):
    fill(one, answered, {"lora": 33})
    fill(one, answered, {"prompt": 30}, step=11)
    (found,) = judged(one, above("lora", "prompt"))
    assert found.verdict == UNDECIDED
    assert found.detectable_difference == found.difference.compute_detectable_difference()
    assert found.verdict_text == f"undecided at this size: can detect {100 * found.detectable_difference:.1f} points"
    _, twice = judged(one, above("lora", "prompt"), above("prompt", "lora"))
    assert (
        twice.detectable_difference
        == twice.difference.compute_detectable_difference(0.975)
        > found.detectable_difference
    )


def test_methods_that_are_the_same_reach_each_other_and_are_not_above(one, answered):
    fill(one, answered, {"lora": 40, "prompt": 40})
    over, up_to = judged(one, above("lora", "prompt"), above("lora", "prompt", relation=REACHES, paper=META_LORA))
    assert (over.verdict, up_to.verdict) == (NOT_SUPPORTED, SUPPORTED)
    fill(one, answered, {"lora": 20})
    assert [one.verdict for one in judged(one, above("lora", "prompt", relation=REACHES))] == [NOT_SUPPORTED]


def test_papers_are_corrected_apart(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30, "prefix": 31})
    wanted = [above("lora", "prompt"), above("prefix", "prompt"), above("lora", "prompt", paper=META_LORA)]
    first, _, other = judged(one, *wanted)
    assert first.p_value == pytest.approx(2 * other.p_value, abs=0)


def test_fewer_parameters_are_part_of_the_claim(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    (found,) = judged(one, above("lora", "prompt", has_fewer_parameters=True))
    assert found.verdict_text == "supported, but not at fewer parameters"  # as many
    assert found._replace(trained_parameters=(10, 20)).verdict_text == "supported"


def test_what_was_not_run_says_so_with_the_command(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30})
    other = above("lora", "prefix", shots=16)
    absent, variant = judged(one, other, above("ta_lora", "ta_lora:no-gate"))
    assert (absent.verdict, variant.verdict, absent.difference) == (NOT_RUN, NOT_RUN, None)
    (said,) = claims.describe_missing_runs(one, [absent, variant], "--profile mine")
    assert "benchmark run --profile mine --methods lora,prefix,ta_lora,ta_lora:no-gate --shots 4,16" in said
    assert said.endswith("--set ta_lora:no-gate.gate=none")
    assert claims.describe_missing_runs(one, judged(one, above("lora", "prompt")), "") == []


def test_a_half_run_claim_is_not_run(one, answered):
    fill(one, answered, {"lora": 54})
    fill(replace(one, seeds=(0, 1)), answered, {"prompt": 30})
    assert [found.verdict for found in judged(one, above("lora", "prompt"))] == [NOT_RUN]


def test_one_seed_is_undecided(one, answered):
    alone = replace(one, seeds=(0,))
    fill(alone, answered, {"lora": 54, "prompt": 30})
    (found,) = judged(alone, above("lora", "prompt"))
    assert (found.verdict, found.verdict_text, found.p_value) == (UNDECIDED, "undecided at this size: one seed", None)


def test_few_shot_is_the_mean_over_the_grids_few_shots(one, answered):
    wide = replace(one, shots=(4, 16, 50))
    fill(wide, answered, {"lora": 54, "prompt": 30})
    assert claims.list_few_shots(wide) == (4, 16)
    assert claims.list_few_shots(replace(one, shots=(50, "full"))) == (16,)
    (found,) = judged(wide, above("lora", "prompt"))
    assert found.difference.mean == pytest.approx(0.4)
    (mixed,) = judged(wide, above("lora", "prompt", shots=16, other_shots=50, task_group="all"))
    assert mixed.difference is not None


def test_a_row_of_the_profile_with_the_same_options_is_the_claimed_one(one):
    rows = ("ta_lora", "ta_lora:flat")
    own = replace(one, methods=rows, config={"ta_lora:flat": {"gate": "none"}})
    assert claims.find_variant_name(own, "ta_lora:no-gate") == "ta_lora:flat"
    assert claims.find_variant_name(one, "ta_lora:no-gate") == "ta_lora:no-gate"
    assert claims.find_variant_name(own, "ta_lora:no-prompt") == "ta_lora:no-prompt"
    _, wide = claims.extend_profile(own, claims.CLAIMS)
    assert wide.config["ta_lora:no-prompt"] == {"length": 0}
    assert "ta_lora:no-gate" not in wide.methods


def test_a_variant_that_the_profile_has_made_the_default_is_no_comparison(one, answered):
    tuned = replace(one, config={"ta_lora": {"slow_lr_multiplier": 1.0}})
    same, other = judged(tuned, above("ta_lora", "ta_lora:no-fast-slow"), above("ta_lora", "ta_lora:no-gate"))
    assert (same.verdict, same.verdict_text) == (claims.SAME_OPTIONS, claims.SAME_OPTIONS)
    assert other.verdict == NOT_RUN
    (said,) = claims.describe_missing_runs(tuned, [same, other], "")
    assert "no-fast-slow" not in said


def test_the_ablation_profiles_have_the_rows_that_are_claimed():
    for name in ("ta-lora-ablation", "meta-lora-ablation"):
        found = loading.load_profile(name)
        own = [
            row for row in claims.VARIANT_OPTIONS if name.startswith(methods.parse_method_name(row).replace("_", "-"))
        ]
        assert own
        assert {claims.find_variant_name(found, row) for row in own} <= set(found.methods)


def test_every_claim_names_rows_that_there_are_and_options_that_they_have():
    for claim in claims.CLAIMS:
        assert claim.paper in claims.PAPER_NOTES
        for row in (claim.variant, claim.other_variant):
            assert methods.parse_method_name(row) in methods.NAMES
    for row, options in claims.VARIANT_OPTIONS.items():
        planner.resolve_method_options(
            replace(loading.load_profile("demo"), config={row: options}), row
        )  # raises where one is unknown
    assert {claim.paper for claim in claims.CLAIMS} == {TA_LORA, META_LORA, TRANSFER} == set(claims.PAPER_NOTES)


def test_the_page_states_every_claim_beside_what_was_reported(one, answered):
    fill(one, answered, {"lora": 54, "prompt": 30, "shared_lora": 59})
    out = io.StringIO()
    path = claims.write_claims(one, "--profile mine", Console(file=out, width=150))
    text, shown = path.read_text(), " ".join(out.getvalue().split())
    assert text.count("\n| ") == len(claims.CLAIMS) + 2 * len(claims.PAPER_NOTES)
    (found,) = [f for f in claims.evaluate_claims(one)[0] if f.claim.variant == "shared_lora"]
    row = f"| shared_lora above lora, 4 shots, target tasks | {claims.format_difference(found.difference)} | {found.p_value:.2g} |"
    assert row in text
    assert "| not run |" in text
    for said in (text, shown):
        assert "We have no table of the paper." in said
        assert "python -m benchmark run --profile mine --methods ta_lora,prompt,adapter" in said
    assert "reconstructions" in text


def test_the_verb_exits_with_0_and_repeats_the_flags_it_was_given(one, answered, capsys):
    words = [
        "--profile",
        "smoke",
        "--backbone",
        one.backbone.name,
        "--results",
        str(one.results_folder),
        "--seeds",
        "0,1,2",
    ]
    words += ["--tasks", ",".join(CHOICES), "--set", "lora.rank=4"]
    assert main(["claims", *words]) == 2
    assert "no results in" in capsys.readouterr().err
    fill(one, answered, {"lora": 54})
    assert main(["claims", *words]) == 0
    out = capsys.readouterr().out
    assert f"run --profile smoke --backbone {one.backbone.name} --tasks chnsent,ocnli --seeds 0,1,2 --results" in out
    assert "--set lora.rank=4 --methods" in out
    assert (one.results_folder / "report" / "claims.md").is_file()
