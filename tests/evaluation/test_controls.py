"""The conditions, on a runner that writes down what is asked of it."""

from dataclasses import dataclass, field

from lm2.evaluation.controls import CONTROLS, MEANINGS, Asker, Query, conditions, main_condition, partner


@dataclass(frozen=True)
class Sample:
    index: int
    question: str = "Where is Mary? "

    def text(self):
        yield f"text {self.index}"


@dataclass
class Plain:
    name: str = "plain"
    description: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def answer(self, before, pieces, after, max_new_tokens):
        self.asked.append((before, "".join(pieces), after, max_new_tokens))
        return f"answer {len(self.asked)}"


@dataclass(repr=False)
class Memory(Plain):
    """A state is the text and what was done to it."""

    calls: list = field(default_factory=list)

    def __repr__(self):
        return "the runner"

    def read_all(self, before, texts, policy=None):
        self.calls.append(len(texts))
        self.asked += ["read"] * len(texts)
        return [(before + "".join(pieces), policy) for pieces in texts]

    def finish(self, state, after, max_new_tokens):
        return f"{state} {after.strip()}"

    def exchange(self, state, other):
        return (state[0], "with", other[0])

    def segments(self, before, pieces):
        return 7

    def reset(self, before, after, number):
        raise AssertionError

    def frozen_after(self, last):
        return f"frozen after {last}"


def asker(runner):
    return Asker(runner, "<context>\n", "\nQuestion: {question}", 20)


def test_conditions_of_models_with_and_without_memory():
    assert conditions(Plain(), CONTROLS) == ("plain", "question")
    assert conditions(Memory(), ("reset",)) == ("carried", "reset", "question")
    assert main_condition(Memory()) == "carried"
    assert set(conditions(Memory(), CONTROLS)) | {"plain"} == set(MEANINGS)


def test_a_memory_is_exchanged_with_that_of_another_story():
    stories = [*"aaabbc"]
    assert [partner(i, stories) for i in range(6)] == [3, 3, 3, 2, 2, 4]
    assert [partner(i, [*stories, "c", "d"]) for i in range(6)] == [3, 3, 3, 2, 2, 4]
    assert [partner(i, [*"aaa"]) for i in range(3)] == [1, 0, 1]
    assert partner(0, ["a"]) is None


def test_a_plain_model_is_asked_the_prompt_without_its_last_space():
    runner = Plain()
    assert asker(runner).answer(Sample(3), "plain") == "answer 1"
    assert runner.asked == [("<context>\n", "text 3", "\nQuestion: Where is Mary?", 20)]


def test_the_question_alone_is_asked_once():
    runner = Plain()
    ask = asker(runner)
    assert [ask.answer(Sample(i), "question") for i in range(3)] == ["answer 1"] * 3
    assert ask.answer(Sample(4, "Where is John? "), "question") == "answer 2"
    assert runner.asked[0][1] == ""


def test_the_controls_of_a_memory():
    runner = Memory()
    ask = asker(runner)
    own, other = Sample(0), Sample(1)
    end = "Question: Where is Mary?"
    assert ask.answer(own, "carried") == f"('<context>\\ntext 0', None) {end}"
    assert ask.answer(own, "exchanged", other) == f"('<context>\\ntext 0', 'with', '<context>\\ntext 1') {end}"
    assert "frozen after 3" in ask.answer(own, "frozen")
    assert "Memory.reset" in ask.answer(own, "reset")


def test_neighbours_are_read_once():
    runner = Memory()
    ask = asker(runner)
    pair = Sample(0), Sample(1)
    for own, other in (pair, pair[::-1]):
        ask.answer(own, "carried")
        ask.answer(own, "exchanged", other)
    assert runner.asked == ["read", "read"]


def test_what_is_prepared_is_read_once_and_side_by_side():
    runner = Memory()
    ask = asker(runner)
    samples = [Sample(i) for i in range(4)]
    queries = [Query(s, way, samples[s.index ^ 1]) for s in samples for way in ("carried", *CONTROLS)]
    ask.prepare(queries)
    assert runner.calls == [4, 4, 4]
    answers = [ask.answer(*query) for query in queries]
    assert runner.calls == [4, 4, 4]
    assert answers == [asker(Memory()).answer(*query) for query in queries]
    ask.prepare(queries[:2])
    for query, reads in ((queries[0], 3), (queries[1], 3), (queries[2], 4)):
        ask.answer(*query)
        assert len(runner.calls) == reads, "what the next questions do not need is forgotten, and only that"


def test_texts_that_are_frozen_after_different_segments_are_read_apart():
    runner = Memory()
    runner.segments = lambda before, pieces: int("".join(pieces)[-1])
    ask = asker(runner)
    ask.prepare(Query(Sample(i), "frozen") for i in (2, 3, 4))
    assert runner.calls == [2, 1]
    assert [f"frozen after {half}" in ask.answer(Sample(i), "frozen") for i, half in ((2, 1), (3, 1), (4, 2))] == [
        True
    ] * 3


def test_a_model_without_memory_has_nothing_to_prepare():
    runner = Plain()
    asker(runner).prepare([Query(Sample(0), "plain"), Query(Sample(0), "question")])
    assert runner.asked == []
