"""What `list` says of label words depends on the tokenizer."""

from benchmark import listing
from benchmark.__main__ import entry


def test_tokens_of_label_words_are_shown_for_a_tokenizer(capsys):
    found = listing.answer_lengths("tiny")
    assert (found["tnews"], found["finre"], found["cmrc2018"]) == ("1", "1-2", "")
    assert entry(["list", "tasks", "--backbone", "tiny"]) == 0
    assert "1-2" in capsys.readouterr().out


def test_without_a_tokenizer_it_says_how_to_see_them(capsys):
    assert entry(["list", "tasks"]) == 0
    assert "--backbone tiny" in capsys.readouterr().out
