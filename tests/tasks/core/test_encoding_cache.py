"""Token ids are made once for the cells that share examples, and the draws of many seeds take no more room."""

import pytest

import tasks
from tasks.core import encoding


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples were tokenised, each time."""
    real, found = encoding.encode_examples, []

    def count(spec, examples, is_training=False):
        found.append(len(examples))
        return real(spec, examples, is_training)

    monkeypatch.setattr(encoding, "encode_examples", count)
    monkeypatch.setattr(encoding, "ENCODING_CACHE", type(encoding.ENCODING_CACHE)())
    return found


def cell(tokenizer, seed: int) -> list:
    """What a few-shot cell asks for."""
    task = tasks.load_task("chnsent")(tokenizer, shots=4, seed=seed, max_per_split={"test": 20})
    return [item for split in ("train", "dev", "test") for item in task.encode_split(split)]


def test_cells_of_one_draw_share_their_tokens_and_all_cells_the_test_set(tokenizer, asked):
    assert cell(tokenizer, 0) == cell(tokenizer, 0)
    assert asked == [8, 8, 20]
    cell(tokenizer, 1)
    assert asked == [8, 8, 20, 8, 8]


def test_draws_of_many_seeds_leave_nothing_behind_and_the_test_set_stays(tokenizer, asked, monkeypatch):
    monkeypatch.setattr(encoding, "MAX_CACHED_SETS", 5)
    for seed in range(12):
        cell(tokenizer, seed)
        assert len(encoding.ENCODING_CACHE[tokenizer]) <= 5
    assert asked.count(20) == 1


def test_there_is_room_for_so_many_tokens(tokenizer, asked, monkeypatch):
    cell(tokenizer, 0)
    known = encoding.ENCODING_CACHE[tokenizer]
    sizes = [size for size, _ in known.values()]
    assert sizes == [sum(len(item.prompt_ids) + len(item.answer_ids) for item in items) for _, items in known.values()]
    monkeypatch.setattr(encoding, "MAX_CACHED_TOKENS", sum(sizes))
    cell(tokenizer, 1)
    assert sum(size for size, _ in known.values()) <= sum(sizes)
    monkeypatch.setattr(encoding, "MAX_CACHED_TOKENS", 1)
    assert cell(tokenizer, 2) == cell(tokenizer, 2)
    assert len(known) == 1  # what is larger than all the room is kept while it is asked for
