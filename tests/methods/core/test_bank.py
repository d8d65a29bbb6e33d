import pytest
import torch
from torch.testing import assert_close

from methods.core.seeding import create_generator
from methods.core.slot_parameters import SlotContext, SlotParameter
from methods.core.tensor_cache import TensorVersionCache


def filled(slots: tuple[int, ...], count: int = 3, **options) -> SlotParameter:
    rows = SlotContext()
    rows.activate(slots, torch.device("cpu"))
    bank = SlotParameter(rows, **options)
    for slot in range(count):
        bank.add_slot(torch.full((2, 2), float(slot)))
    return bank


def test_each_row_gets_its_own_set():
    assert filled((2, 0, 2))()[:, 0, 0].tolist() == [2, 0, 2]


def test_one_slot_costs_no_stack():
    bank = filled((1, 1))
    assert bank() is bank.tensors[1]
    assert filled((0, 0), count=1)().dim() == 2


@pytest.mark.parametrize("slots", [(2, 0, 2), (1, 1)])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_made_once_for_each_slot_present_reaches_its_rows(slots, count):
    bank = filled(slots, count=count)
    assert len(bank.stack_present_slots()) == (len(set(slots)) if count > 1 else 1)
    assert torch.equal(
        bank.slot_context.gather_rows(bank.stack_present_slots()).expand(len(slots), -1, -1),
        bank().expand(len(slots), -1, -1),
    )


def test_memory_holds_until_a_tensor_changes_or_is_another():
    memory, made, tensor = TensorVersionCache(), [], torch.zeros(2)

    def make() -> int:
        made.append(tensor.sum().item())
        return len(made)

    assert [memory("key", [tensor], make) for _ in range(3)] == [1, 1, 1]
    tensor += 1
    assert memory("key", [tensor], make) == 2
    assert memory("key", [tensor.clone()], make) == 3
    assert memory("other key", [tensor], make) == 4
    assert made == [0, 2, 2, 2]


def test_an_absent_slot_has_no_gradient():
    bank = filled((0, 2))
    bank().sum().backward()
    assert [p.grad is not None for p in bank.tensors] == [True, False, True]


def test_a_shared_bank_keeps_one_set_for_all_rows():
    bank = filled((0, 1, 2), is_shared=True)
    assert len(bank.tensors) == 1
    assert bank() is bank.tensors[0]


def test_spread_starts_every_slot_from_the_mean():
    bank = filled((0,))
    bank.broadcast_mean(2)
    assert len(bank.tensors) == 2
    for tensor in bank.tensors:
        assert_close(tensor, torch.ones(2, 2))
    assert bank.tensors[0].data_ptr() != bank.tensors[1].data_ptr()


def test_a_stream_depends_on_its_name_alone():
    def draw(*name):
        return torch.rand(3, generator=create_generator(*name)).tolist()

    torch.manual_seed(1)
    first = draw(0, "target", "start")
    torch.manual_seed(2)
    assert draw(0, "target", "start") == first
    assert draw(0, "target", "dropout") != first
