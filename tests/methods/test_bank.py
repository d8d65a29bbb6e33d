import torch
from torch.testing import assert_close

from methods.bank import Bank, Rows, stream


def filled(slots: tuple[int, ...], count: int = 3, **options) -> Bank:
    rows = Rows()
    rows.see(slots, torch.device("cpu"))
    bank = Bank(rows, **options)
    for slot in range(count):
        bank.add(torch.full((2, 2), float(slot)))
    return bank


def test_each_row_gets_its_own_set():
    assert filled((2, 0, 2))()[:, 0, 0].tolist() == [2, 0, 2]


def test_one_slot_costs_no_stack():
    bank = filled((1, 1))
    assert bank() is bank.sets[1]
    assert filled((0, 0), count=1)().dim() == 2


def test_an_absent_slot_has_no_gradient():
    bank = filled((0, 2))
    bank().sum().backward()
    assert [p.grad is not None for p in bank.sets] == [True, False, True]


def test_a_shared_bank_keeps_one_set_for_all_rows():
    bank = filled((0, 1, 2), shared=True)
    assert len(bank.sets) == 1
    assert bank() is bank.sets[0]


def test_spread_starts_every_slot_from_the_mean():
    bank = filled((0,))
    bank.spread(2)
    assert len(bank.sets) == 2
    for tensor in bank.sets:
        assert_close(tensor, torch.ones(2, 2))
    assert bank.sets[0].data_ptr() != bank.sets[1].data_ptr()


def test_a_stream_depends_on_its_name_alone():
    def draw(*name):
        return torch.rand(3, generator=stream(*name)).tolist()

    torch.manual_seed(1)
    first = draw(0, "target", "start")
    torch.manual_seed(2)
    assert draw(0, "target", "start") == first
    assert draw(0, "target", "dropout") != first
