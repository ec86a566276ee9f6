import hashlib
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data import babi
from lm2.evaluation.babilong import LocalBabilong, compose, grouped, stripped
from lm2.evaluation.sentences import Background
from lm2.evaluation.tokens import LengthTokenizer, n_tokens

QUESTION = babi.Sample(
    "qa1",
    ("Mary went to the office.", "John moved to the garden.", "Mary moved to the kitchen."),
    "Where is Mary?",
    "kitchen",
    (2,),
)

# bAbI's test files: least, most and mean number of facts; mean and largest number of GPT-2 tokens; supporting facts
FACTS = {
    "qa1": (2, 10, 6, 38, 67, (1, 1)),
    "qa2": (2, 88, 15.4, 96, 566, (2, 2)),
    "qa3": (4, 228, 51, 308, 1377, (3, 3)),
    "qa4": (2, 2, 2, 16, 16, (1, 1)),
    "qa5": (2, 94, 19.9, 126, 600, (1, 1)),
    "qa6": (2, 14, 6.2, 39, 87, (1, 1)),
    "qa7": (2, 34, 8.1, 52, 219, (1, 8)),
    "qa8": (2, 58, 8.8, 55, 371, (1, 6)),
    "qa9": (2, 10, 6, 40, 75, (1, 1)),
    "qa10": (2, 10, 6, 43, 85, (1, 1)),
}


@pytest.mark.parametrize("task", FACTS)
def test_the_test_files_have_the_known_facts(babi_files, background, task):
    questions = list(babi.samples(task, babi.read_stories(babi_files, task, "test")))
    facts = [len(question.facts) for question in questions]
    texts = {fact for question in questions for fact in question.facts}
    size = dict(zip(texts, background.tokenizer.count([f" {fact}" for fact in texts]), strict=True))
    tokens = [sum(size[fact] for fact in question.facts) for question in questions]
    support = [len(question.support) for question in questions]
    least, most, mean, mean_tokens, most_tokens, (fewest, largest) = FACTS[task]
    assert (len(questions), min(facts), max(facts), max(tokens)) == (1000, least, most, most_tokens)
    assert np.mean(facts) == pytest.approx(mean, abs=0.5)
    assert np.mean(tokens) == pytest.approx(mean_tokens, abs=0.6)
    assert (min(support), max(support)) == (fewest, largest)


def make(background, length="2k", seed=0, question=QUESTION, depth=None):
    return compose(question, length, 0, background, np.random.default_rng(seed), depth)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.sampled_from(["1k", "2k", "4k"]))
def test_the_context_has_the_length_less_the_reserve(background, seed, length):
    """To the token, except that the cut last sentence may split into other tokens when it is read again."""
    pieces = list(make(background, length, seed).content.pieces())
    assert sum(background.tokenizer.count(pieces)) == pytest.approx(n_tokens(length) - 300, abs=2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_facts_are_whole_in_order_and_where_they_say(background, seed):
    sample = make(background, seed=seed)
    context = " " + sample.context()
    place = 0
    for fact in sample.facts:
        place = context.index(f" {fact.text}", place) + 1 + len(fact.text)
        (after,) = background.tokenizer.count([context[place:]])
        assert after == pytest.approx(fact.distance, abs=2)
    assert [fact.supporting for fact in sample.facts] == [False, False, True]


def test_facts_stand_between_sentences(background):
    pieces = list(make(background).content.pieces())
    facts = {f" {fact}" for fact in QUESTION.facts}
    book = " ".join(background.texts)
    assert sum(piece in facts for piece in pieces) == 3
    assert all(piece[1:] in book for piece in pieces if piece not in facts)
    assert all(piece.endswith(".") for piece in pieces if piece not in facts and piece != pieces[-1])


def test_questions_about_one_story_have_its_hash_at_every_length_and_other_stories_have_others(background):
    """What a paired test takes to be independent."""

    def story(task: str, *facts: str, length: str = "0k") -> str:
        question = babi.Sample(task, facts, "Where is Mary?", "kitchen", (len(facts) - 1,))
        return make(background, length, question=question).story

    first, second, third = QUESTION.facts
    own = story("qa1", first, second)
    assert own == story("qa1", first, second, third) == story("qa1", first, second, third, first, length="1k")
    assert len({own, story("qa1", first, third), story("qa1", third, second), story("qa2", first, second)}) == 4


def test_gaps_are_uniform_with_replacement_and_include_both_ends():
    """Twelve equal sentences, so thirteen gaps; two facts in the same gap once in thirteen."""
    sentence = "The quiet old man there walked over the bridge every morning."
    background = Background([" ".join([sentence] * 300)], LengthTokenizer.gpt2(), "equal")
    (each,) = background.tokenizer.count([f" {sentence}"])
    question = babi.Sample("qa1", ("Mary went home.", "Mary went out."), "Where is Mary?", "out", (1,))
    gaps = np.array([make(background, "1k", seed, question).content.gaps for seed in range(3000)])
    n_gaps = -(-(700 - sum(background.tokenizer.count([f" {fact}" for fact in question.facts]))) // each) + 1
    shares = np.bincount(gaps.ravel(), minlength=n_gaps) / gaps.size
    assert len(shares) == n_gaps
    assert shares == pytest.approx(np.full(n_gaps, 1 / n_gaps), abs=0.3 / n_gaps)
    assert np.mean(gaps[:, 0] == gaps[:, 1]) == pytest.approx(1 / n_gaps, abs=0.01)


def test_without_background_there_are_only_the_facts(background):
    sample = make(background, "0k")
    assert sample.context() == " ".join(QUESTION.facts)
    assert [fact.distance for fact in sample.facts] == [12, 6, 0]


def test_depth_limits_where_facts_stand(background):
    for seed in range(30):
        sample = make(background, "4k", seed, depth=(0.4, 0.6))
        assert all(3700 * 0.4 - 60 <= fact.distance <= 3700 * 0.6 for fact in sample.facts)
    with pytest.raises(ValueError, match=r"within 0\.5 to 0\.505 of 3700 tokens when the facts need 18"):
        make(background, "4k", depth=(0.5, 0.505))


def test_a_sample_is_the_same_in_every_set_and_whatever_came_before(babi_files, background):
    small = LocalBabilong(babi_files, background, size=100).samples("qa7", "1k")
    large = LocalBabilong(babi_files, background, size=1000).samples("qa7", "1k")
    third = [next(islice(samples, 2, None)) for samples in (small, large)]
    assert third[0] == third[1]
    assert third[0].context() == third[1].context() == "".join(third[0].text())


def test_a_question_has_a_generator_of_its_own_by_its_number_in_the_file(babi_files, background):
    """Whichever questions are left out before it: sets of other sizes, and of before, have the same texts."""
    questions = list(babi.samples("qa1", babi.read_stories(babi_files, "qa1", "test")))
    source, numbers = LocalBabilong(babi_files, background, size=100, seed=4), []
    for sample in islice(source.samples("qa1", "1k"), 20, 23):
        asked = tuple(fact.text for fact in sample.facts), sample.question.rstrip()
        (number,) = [i for i, question in enumerate(questions) if (question.facts, question.question) == asked]
        rng = np.random.default_rng([4, 1, 1000, number])
        assert sample.context() == compose(questions[number], "1k", sample.index, background, rng).context()
        numbers.append(number - sample.index)
    assert all(numbers), "rows of the set are not those of the file"


def test_simulated_questions_follow_from_the_seed(background):
    first, again, other = (
        [sample.facts[0].text for sample in islice(LocalBabilong(None, background, seed=seed).samples("qa1", "0k"), 20)]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_seed_task_and_length_change_the_background(babi_files, background):
    contexts = {
        next(LocalBabilong(babi_files, background, seed=seed).samples(task, length)).context()
        for seed, task, length in [(0, "qa1", "1k"), (1, "qa1", "1k"), (0, "qa2", "1k"), (0, "qa1", "2k")]
    }
    assert len({context[-300:] for context in contexts}) == 4


def test_a_seed_means_the_same_text_for_ever():
    """If this fails, samples made before and after differ: results files with the same seed no longer compare."""
    text = " ".join(f"The visitor number {n} walked slowly along the quiet river bank." for n in range(500))
    context = make(Background([text], LengthTokenizer.gpt2(), "numbered"), "2k", seed=5).context()
    assert hashlib.sha256(context.encode()).hexdigest()[:16] == "d36ed769040fe6fa"


def test_questions_end_as_published(babi_files, background):
    source = LocalBabilong(babi_files, background)
    assert next(source.samples("qa1", "0k")).question == "Where is Mary? "
    assert next(source.samples("qa4", "0k")).question.endswith("?")


def test_simulated_questions_need_no_files(background):
    source = LocalBabilong(None, background, size=100)
    for number in range(1, 11):
        samples = list(source.samples(f"qa{number}", "1k"))
        assert len(samples) == 100
        assert all(any(fact.supporting for fact in sample.facts) for sample in samples)
    assert source.description["questions"] == "simulated"
    with pytest.raises(ValueError, match="qa1 to qa10, not qa11"):
        next(source.samples("qa11", "1k"))


@pytest.mark.parametrize(("task", "length", "match"), [("qa21", "1k", "task 'qa21'"), ("qa1", "1K", "length '1K'")])
def test_unknown_cells_are_refused(babi_files, background, task, length, match):
    with pytest.raises(ValueError, match=match):
        next(LocalBabilong(babi_files, background).samples(task, length))


def test_a_corrupt_line_is_named(tmp_path, background):
    (tmp_path / "qa1_test.txt").write_text("1 Mary went to the office.\nwhat\n")
    with pytest.raises(ValueError, match=r"qa1_test\.txt:2: .*'what'"):
        next(LocalBabilong(tmp_path, background).samples("qa1", "1k"))


def test_a_million_tokens_are_read_in_flat_memory(background):
    for number in range(3):
        background.book(number)
    tracemalloc.start()
    sample = make(background, "1M")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    characters = sum(map(len, sample.text()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters > 3_000_000
    assert peak - kept < 150_000
    assert max(map(len, islice(sample.text(), 1000))) < 3000


@pytest.mark.slow
def test_ten_million_tokens_have_their_length(background):
    pieces = make(background, "10M").text()
    tokens = sum(sum(background.tokenizer.count(block)) for block in iter(lambda: list(islice(pieces, 500)), []))
    assert tokens == pytest.approx(9_999_700, rel=1e-4)


words = st.lists(st.text(alphabet="ab \n", max_size=5), max_size=12)


@given(pieces=words)
def test_stripping_piece_by_piece_is_stripping_the_whole(pieces):
    assert "".join(stripped(pieces)) == "".join(pieces).strip()


@given(pieces=words)
def test_grouping_changes_no_text(pieces):
    assert "".join(grouped(pieces)) == "".join(pieces)
