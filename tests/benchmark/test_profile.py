from pathlib import Path

import pytest

from benchmark.config import loading
from benchmark.config.budget import Budget
from tasks.core.types import UsageError


@pytest.mark.parametrize("name", loading.list_presets())
def test_profiles_that_ship_are_valid(name: str):
    found = loading.load_profile(name)
    assert found.name == name
    assert found.about


def test_the_profiles_that_ship():
    grids = ["data-efficiency", "demo", "paper", "small", "smoke", "transfer"]
    assert loading.list_presets() == sorted([*grids, "meta-lora-ablation", "ta-lora-ablation"])


def test_flags_and_settings_change_only_what_they_name():
    found = loading.load_profile("demo", {"shots": ["4", "full"], "seeds": None}, ["budget.epochs=3", "lora.lr=1e-3"])
    plain = loading.load_profile("demo")
    assert found.shots == (4, "full")
    assert found.seeds == plain.seeds
    assert found.budget.epochs == 3
    assert found.budget.max_steps == plain.budget.max_steps
    assert found.config["prompt"] == plain.config["prompt"]


def test_a_method_may_have_several_rows():
    found = loading.load_profile("smoke", {"methods": ["lora", "lora:rank-2"]}, ["lora:rank-2.rank=2"])
    assert found.methods == ("lora", "lora:rank-2")
    assert found.config["lora:rank-2"] == {"rank": 2}


def test_a_file_of_ones_own_is_a_profile(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("methods: [lora]\ntasks: [ocnli]\nbudget: {epochs: 2}\n")
    found = loading.load_profile(str(path))
    assert (found.name, found.methods, found.budget) == ("mine", ("lora",), Budget(epochs=2))


BAD = [
    ({}, "smoek", [], "did you mean 'smoke'"),
    ({"methods": ["lroa"]}, "smoke", [], "did you mean 'lora'"),
    ({"tasks": ["ocnil"]}, "smoke", [], "did you mean 'ocnli'"),
    ({"methods": []}, "smoke", [], "methods is empty"),
    ({"methods": ["lora", "lora"]}, "smoke", [], "named twice"),
    ({"shots": ["few"]}, "smoke", [], "shots 'few'"),
    ({"shots": ["0"]}, "smoke", [], "shots 0"),
    ({"shots": ["4", "4"]}, "smoke", [], "twice"),
    ({"seeds": ["a"]}, "smoke", [], "seeds"),
    ({"seeds": ["-1"]}, "smoke", [], "0 or more"),
    ({"source": "web"}, "smoke", [], "source"),
    ({"source": "local"}, "smoke", [], "--data-dir"),
    ({"source": "local", "data_dir": "/no/such/folder"}, "smoke", [], "no such folder"),
    ({"workers": "0"}, "smoke", [], "workers"),
    ({"workers": "many"}, "smoke", [], "workers"),
    ({"methods": ["lora", "lora:rank-2"]}, "smoke", [], "--set lora:rank-2.lr=0.01"),
    ({}, "smoke", ["budget.epochs=0"], "1 or more"),
    ({}, "smoke", ["budget.epochs=many"], "epochs"),
    ({}, "smoke", ["budget.epoch=3"], "epoch"),
    ({}, "smoke", ["budgets=3"], "did you mean 'budget'"),
    ({}, "smoke", ["lora.lr"], "name.option=value"),
    ({}, "smoke", ["limit.tets=3"], "train, dev or test"),
    ({}, "smoke", ["backbone.dtype=int3"], "dtype"),
    ({}, "smoke", ["a.b.c.d=3"], "<method>.<option>"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "settings", "said"), BAD)
def test_bad_input_is_one_line_that_says_what_and_where(changes: dict, name: str, settings: list[str], said: str):
    with pytest.raises(UsageError) as caught:
        loading.load_profile(name, changes, settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "methods: [lora", "metods: [lora]", "methods: 3\nbudget: 4", "\x00"])
def test_a_bad_file_is_one_line(text: str, tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        loading.load_profile(str(path))
    assert "\n" not in str(caught.value)
    assert "bad" in str(caught.value)


def test_seeds_of_streams_that_do_not_vary_stay_at_zero():
    found = loading.load_profile("smoke", {"seed_streams": ["split"]})
    assert found.get_stream_seeds(5) == {"split": 5, "start": 0, "order": 0}
