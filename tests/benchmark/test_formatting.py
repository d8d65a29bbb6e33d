import pytest

from benchmark.config.run_limits import parse_size
from benchmark.system.formatting import format_bytes


@pytest.mark.parametrize("text", ["8.0 GB", "709 MB", "1.5 GB"])
def test_a_size_that_is_printed_is_the_size_that_is_typed(text: str):
    assert format_bytes(parse_size(text)) == text


def test_no_size_is_empty():
    assert format_bytes(None) == ""
