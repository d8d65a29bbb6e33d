"""What `list` says of label words depends on the tokenizer."""

from benchmark.cli import listing
from benchmark.cli.main import main


def test_tokens_of_label_words_are_shown_for_a_tokenizer(capsys):
    found = listing.count_answer_tokens("tiny")
    assert (found["tnews"], found["finre"], found["cmrc2018"]) == ("1", "1-2", "")
    assert main(["list", "tasks", "--backbone", "tiny"]) == 0
    assert "1-2" in capsys.readouterr().out


def test_without_a_tokenizer_it_says_how_to_see_them(capsys):
    assert main(["list", "tasks"]) == 0
    assert "--backbone tiny" in capsys.readouterr().out


def test_methods_say_how_many_numbers_they_train_on_the_backbone(capsys):
    counts = listing.count_parameters_by_method("tiny")
    backbone = listing.load_backbone("tiny")
    assert counts["full"] == sum(p.numel() for p in backbone.model.parameters())
    assert (counts["zero_shot"], counts["prompt"]) == (0, 20 * backbone.hidden_size)
    assert main(["list", "methods"]) == 0
    assert "1.05 M" in capsys.readouterr().out
