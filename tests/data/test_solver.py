import pytest

from lm2.data.babi import read_stories, samples
from lm2.data.solver import solve


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_real_question_is_answered(babi, task, split):
    wrong = [
        sample
        for sample in samples(task, read_stories(babi, task, split))
        if solve(task, sample.facts, sample.question) != sample.answer
    ]
    assert wrong == []


def test_object_moves_with_its_holder_only():
    facts = ["Mary went to the office.", "Mary got the milk there.", "John moved to the garden."]
    assert solve("qa2", facts, "Where is the milk?") == "office"
    assert solve("qa2", [*facts, "Mary moved to the kitchen."], "Where is the milk?") == "kitchen"
    dropped = [*facts, "Mary left the milk.", "Mary moved to the kitchen."]
    assert solve("qa2", dropped, "Where is the milk?") == "office"


def test_before_means_before_the_last_stay():
    facts = ["Mary got the milk.", *(f"Mary moved to the {p}." for p in ("office", "garden", "kitchen", "garden"))]
    assert solve("qa3", facts, "Where was the milk before the garden?") == "kitchen"


def test_what_cannot_be_answered_is_an_error():
    with pytest.raises(ValueError, match="Unknown task 'qa4': the solver knows qa1, qa2, qa3"):
        solve("qa4", [], "Where is Mary?")
    with pytest.raises(ValueError, match="The 1 facts do not decide"):
        solve("qa1", ["Mary went to the office."], "Where is John?")
    with pytest.raises(ValueError, match="do not decide"):
        solve("qa3", ["Mary got the milk.", "Mary moved to the office."], "Where was the milk before the office?")
    with pytest.raises(ValueError, match="Not a question of qa2"):
        solve("qa2", [], "Where is Mary?")
    with pytest.raises(ValueError, match=r"Not a fact .*'It rained\.'"):
        solve("qa1", ["It rained."], "Where is Mary?")
