"""What a cell cost when others share what it rests on, and what it would have cost alone."""

from benchmark.table import resting


def result(name: str, seconds: float, *parents: str, state: str = "done") -> dict:
    return {"identity": name, "parents": list(parents), "times": {"seconds": seconds}, "state": state}


def test_shared_work_is_divided_among_its_heirs_and_counted_whole_for_one():
    """Two prompts of 8 s each, a source stage of 10 s on both, two targets of 1 s on it, one target on a prompt."""
    found = resting(
        [result("p", 8), result("q", 8), result("s", 10, "p", "q"), result("a", 1, "s"), result("b", 1, "s"),
         result("c", 2, "p")]
    )  # fmt: skip
    assert found["p"] == (8, 8)
    assert found["s"] == (10 + 8 / 2 + 8, 26)
    assert found["a"] == found["b"] == (1 + 22 / 2, 27)
    assert found["c"] == (2 + 8 / 2, 10)
    assert sum(found[name][0] for name in "abc") == 8 + 8 + 10 + 1 + 1 + 2  # what was spent, once


def test_what_is_above_twice_is_counted_once():
    found = resting([result("p", 4), result("s", 10, "p"), result("a", 1, "s", "p")])
    assert found["a"] == (1 + 12 + 2, 15)


def test_without_all_parents_there_is_no_cost():
    found = resting([result("s", 10, state="failed"), result("a", 1, "s"), result("b", 2, "gone"), result("c", 3)])
    assert found == {"c": (3, 3)}
