from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmark.config import loading, validation
from benchmark.config.profile import Profile
from benchmark.grid import code_hash, data_hash, identity, planner, specs
from benchmark.grid.cells import Cell
from benchmark.system import disk_cache
from tasks.core.types import UsageError
from tasks.suites import CHINESE


def test_controls_have_one_cell_per_task_and_the_rest_one_per_shots_and_seed(small: Profile):
    cells = [planned.cell for planned in planner.plan_grid(small)]
    assert [cell for cell in cells if cell.method == "zero_shot"] == [
        Cell("zero_shot", task, 0, 0) for task in ("afqmc", "chnsent", "cote_bd")
    ]
    assert sum(cell.method == "lora" for cell in cells) == 3 * 2 * 3
    assert len(set(cells)) == len(cells) == 3 + 2 * 18


def test_a_control_that_sees_the_examples_has_a_cell_per_shots_and_seed_where_it_can_answer(small: Profile):
    cells = [planned.cell for planned in planner.plan_grid(replace(small, methods=("head_only",)))]
    assert {cell.task for cell in cells} == {"afqmc", "chnsent"}  # cote_bd has no choices
    assert len(cells) == 2 * 2 * 3


def test_all_methods_of_a_task_and_shots_and_seed_come_before_the_next(small: Profile):
    cells = [planned.cell for planned in planner.plan_grid(small)][3:]
    assert [cell.method for cell in cells[:4]] == ["lora", "prompt"] * 2
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_full_data_comes_after_numbers_of_shots(small: Profile):
    cells = [planned.cell for planned in planner.plan_grid(replace(small, shots=("full", 16, 4), seeds=(0,)))][3:]
    assert list(dict.fromkeys(cell.shots for cell in cells)) == [4, 16, "full"]


def test_identities_are_stable_and_differ(small: Profile):
    first, second = planner.plan_grid(small), planner.plan_grid(small)
    assert [cell.identity for cell in first] == [cell.identity for cell in second]
    assert len({cell.identity for cell in first}) == len(first)


@pytest.mark.parametrize(
    ("settings", "touched", "why"),
    [
        (["lora.lr=0.5"], {"lora"}, "options.lr 0.0002 -> 0.5"),
        (["budget.epochs=7"], {"lora", "prompt"}, "budget.epochs 1 -> 7"),
        (["limit.test=5"], {"lora", "prompt", "zero_shot"}, "settings.limit"),
        (["normalise=mean"], {"lora", "prompt", "zero_shot"}, "settings.normalise sum -> mean"),
        (["workers=2", "wandb=offline", "about=other words"], set(), ""),
    ],
)
def test_a_change_touches_the_cells_it_concerns_and_says_what_it_is(small: Profile, settings, touched, why):
    changed = asdict(small)
    for setting in settings:
        loading.apply_setting(changed, setting)
    before, after = (
        planner.plan_grid(small),
        planner.plan_grid(validation.validate_profile(loading.parse_profile(changed, "test"))),
    )
    differ = [(a, b) for a, b in zip(before, after, strict=True) if a.identity != b.identity]
    assert {a.cell.method for a, _ in differ} == touched
    assert all(why in ", ".join(identity.describe_changes(a.inputs, b.inputs)) for a, b in differ)


def test_an_edit_of_a_methods_code_touches_it_alone_but_a_comment_does_not(tmp_path, monkeypatch, small):
    path = tmp_path / "edited.py"
    monkeypatch.syspath_prepend(tmp_path)
    chosen = replace(small, methods=("lora", "edited:Edited"), shots=(4,), seeds=(0,))

    def identities(body: str) -> dict[str, str]:
        path.write_text("from methods.lora import LoRA\n\n\nclass Edited(LoRA):\n    name = 'edited'\n" + body)
        for remembered in (code_hash.hash_code, code_hash.find_code, code_hash.parse_module, specs.get_method_spec):
            remembered.cache_clear()
        return {planned.cell.method: planned.identity for planned in planner.plan_grid(chosen)}

    plain, comment, edit = identities(""), identities("    # nothing\n"), identities("    is_mergeable = False\n")
    assert plain == comment
    assert {name for name in plain if plain[name] != edit[name]} == {"edited:Edited"}


def test_other_records_touch_only_their_task(tmp_path: Path, small: Profile):
    for task in ("chnsent", "cote_bd"):
        (tmp_path / task).mkdir()
        for split in ("train", "test"):
            suffix = "tsv" if task == "chnsent" else "txt"
            (tmp_path / task / f"{split}.{suffix}").write_text("x\n")
    local = replace(small, source="local", data_dir=str(tmp_path), tasks=("chnsent", "cote_bd"))
    before = {cell.cell: cell.identity for cell in planner.plan_grid(local)}
    (tmp_path / "chnsent" / "train.tsv").write_text("y\nz\n")
    data_hash.hash_records.cache_clear()
    identity._hash_records.cache_clear()
    after = {cell.cell: cell.identity for cell in planner.plan_grid(local)}
    assert {cell.task for cell in before if before[cell] != after[cell]} == {"chnsent"}


def test_a_folder_without_records_is_refused_before_anything_runs(tmp_path: Path, small: Profile):
    with pytest.raises(UsageError, match="afqmc: no records in"):
        planner.plan_grid(replace(small, source="local", data_dir=str(tmp_path)))


def test_source_stages_are_parents_found_by_content_and_come_first(heir: Profile):
    cells = planner.plan_grid(heir)
    kinds = [(c.cell.method, c.cell.stage, c.cell.task) for c in cells if c.cell.seed == 0]
    place = {c.identity: i for i, c in enumerate(cells)}
    assert all(place[parent] < place[c.identity] for c in cells for parent in c.dependencies)
    # afqmc is a source: its own source stage leaves it out, and needs the prompt of the other source only
    assert kinds.count(("heirs:Heir", "source", "sources")) == 1
    assert kinds.count(("heirs:Heir", "source", "sources-afqmc")) == 1
    assert sum(method == "prompt" for method, _, _ in kinds) == 2
    assert sum(c.should_save_adapter for c in cells if c.cell.seed == 0) == 4


def test_a_parent_runs_with_the_options_its_heir_asks_for(heir: Profile):
    parent = next(c for c in planner.plan_grid(heir) if c.cell.method == "prompt")
    assert (parent.options["length"], parent.options["lr"]) == (3, 0.125)
    assert parent.cell.shots == "full"


def test_a_target_never_trains_in_its_own_source_stage(heir: Profile):
    by_identity = {c.identity: c for c in planner.plan_grid(heir)}
    targets = [c for c in by_identity.values() if c.cell.stage == "target" and c.cell.method == "heirs:Heir"]
    assert all(c.cell.task not in by_identity[parent].training_tasks for c in targets for parent in c.dependencies)


def test_sources_in_halves_need_three_source_stages_and_never_train_a_target(small: Profile):
    halves = replace(
        small, methods=("shared_lora",), tasks=CHINESE.tasks, sources=CHINESE.sources, leave_out="half", seeds=(0,)
    )
    cells = planner.plan_grid(halves)
    stages = {c.identity: c for c in cells if c.cell.stage == "source"}
    assert {c.cell.task for c in stages.values()} == {"sources", "sources-half-0", "sources-half-1"}
    for target in (c for c in cells if c.cell.stage == "target"):
        learned = stages[target.dependencies[0]].training_tasks
        assert target.cell.task not in learned
        assert len(learned) == (4 if target.cell.task in CHINESE.sources else 8)


def test_a_row_is_its_method_under_options_of_its_own(small: Profile):
    config = {"method": {"lr": 0.5}, "lora": {"alpha": 3.0}, "lora:rank-2": {"rank": 2}}
    rows = replace(small, methods=("lora", "lora:rank-2"), shots=(4,), seeds=(0,), tasks=("afqmc",), config=config)
    plain, row = planner.plan_grid(rows)
    assert row.cell.key == "lora:rank-2/afqmc/4/0"
    assert row.options == plain.options | {"rank": 2} == specs.get_method_spec("lora").options | config["lora"] | {
        "lr": 0.5, "rank": 2}  # fmt: skip
    assert row.inputs.method_code == plain.inputs.method_code
    with pytest.raises(UsageError, match="did you mean 'rank'"):
        planner.plan_grid(replace(rows, config={"lora:rank-2": {"rnak": 2}}))


def test_rows_share_the_source_stages_of_options_that_only_the_target_reads(heir: Profile):
    config = {"heirs:Heir:scale": {"alpha": 3.0}, "heirs:Heir:rank": {"rank": 2}}
    cells = planner.plan_grid(
        replace(heir, methods=("heirs:Heir", *config), tasks=("chnsent",), seeds=(0,), config=config)
    )
    (plain, scaled, ranked), sources = (
        [c for c in cells if c.cell.method.startswith("heirs") and (c.cell.stage == "target") is target]
        for target in (True, False)
    )
    assert plain.dependencies == scaled.dependencies != ranked.dependencies
    assert [c.cell.key for c in sources] == ["heirs:Heir.source/sources/full/0"] * 2
    assert (plain.options["alpha"], scaled.options["alpha"]) == (16.0, 3.0)


def test_an_edit_of_a_parent_reaches_its_children(heir: Profile):
    other = replace(heir, source_shots=8)
    before = {
        c.cell: c.identity for c in planner.plan_grid(heir) if c.cell.stage == "target" and c.cell.method != "prompt"
    }
    after = {
        c.cell: c.identity for c in planner.plan_grid(other) if c.cell.stage == "target" and c.cell.method != "prompt"
    }
    assert all(before[cell] != after[cell] for cell in before)


def test_options_that_no_method_has_are_refused(small: Profile):
    with pytest.raises(UsageError, match="did you mean 'rank'"):
        planner.plan_grid(replace(small, config={"lora": {"rnak": 3}}))
    with pytest.raises(UsageError, match="none of"):
        planner.check_options_exist(replace(small, config={"method": {"rnak": 3}}))
    planner.check_options_exist(replace(small, config={"method": {"rank": 3}}))


def test_facts_of_an_older_version_of_the_catalogue_are_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path))
    assert disk_cache.load_or_compute("key", lambda: "old") == "old"
    assert disk_cache.load_or_compute("key", lambda: "new") == "old"
    monkeypatch.setattr(disk_cache, "hash_source_file", lambda file: "other code")
    assert disk_cache.load_or_compute("key", lambda: "new") == "new"


def test_a_backbone_that_is_nowhere_is_refused_without_a_network(small: Profile):
    with pytest.raises(UsageError, match="no such folder"):
        planner.plan_grid(replace(small, backbone=replace(small.backbone, name="./nowhere")))
