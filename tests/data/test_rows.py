from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.babi import Question, Story, read_stories, samples
from lm2.data.rows import IGNORED, TrainingRows, _draw_where, chosen, evaluation_samples
from lm2.data.solver import solve
from lm2.data.world import TASKS as SIMULATED
from lm2.data.world import simulate_dense
from tests.data.texts import EVENT, answers_of

TASKS = ["qa1", "qa2", "qa3"]


def labelled(tokenizer, labels):
    return tokenizer.decode(labels[labels != IGNORED]).split()


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 2**32), n_tokens=st.integers(250, 700))
@settings(max_examples=25, deadline=None)
def test_labels_are_the_solvers_answers(task, tokenizer, pool, seed, n_tokens):
    rows = TrainingRows(task, tokenizer, pool, max_facts=20, questions=6)
    ids, labels = rows.row(n_tokens, np.random.default_rng(seed))
    assert ids.shape == labels.shape == (n_tokens,)
    assert (ids[labels != IGNORED] == labels[labels != IGNORED]).all()
    written, right = answers_of(task, tokenizer.decode(ids))
    assert written == right == labelled(tokenizer, labels)
    assert 1 <= len(written) <= 6


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 2**32), n_tokens=st.integers(250, 400))
@settings(max_examples=15, deadline=None)
def test_rows_without_background_are_one_long_story(task, tokenizer, seed, n_tokens):
    ids, labels = TrainingRows(task, tokenizer, None).row(n_tokens, np.random.default_rng(seed))
    assert ids.shape == labels.shape == (n_tokens,)
    written, right = answers_of(task, tokenizer.decode(ids))
    # the row may be cut between the last answer and its full stop
    assert labelled(tokenizer, labels)[: len(written)] == written == right
    assert 1 <= len(labelled(tokenizer, labels)) <= len(written) + 1


def test_the_last_question_closes_the_row(tokenizer, pool):
    rows = TrainingRows("qa1", tokenizer, pool)
    for seed in range(20):
        ids, labels = rows.row(200, np.random.default_rng(seed))
        assert labels[-2] == ids[-2]
        assert tokenizer.decode(ids[-1:]) == "."


def facts_of(tokenizer, ids):
    return [fact for fact, *_ in EVENT.findall(tokenizer.decode(ids)) if fact]


def test_density_bounds_the_facts_and_questions(tokenizer, pool):
    rows = TrainingRows("qa1", tokenizer, pool, max_facts=100, questions=30, fact_density=0.3)
    told = []
    for seed in range(20):
        text = tokenizer.decode(rows.row(400, np.random.default_rng(seed))[0])
        items = [f" {fact or f'{question} {answer}.'}" for fact, question, answer in EVENT.findall(text)]
        told.append(sum(len(tokenizer(item, add_special_tokens=False)["input_ids"]) for item in items))
    assert 0.2 * 400 < max(told) <= 0.3 * 400


def test_a_row_has_room_for_the_question_before_it(tokenizer, pool):
    rows = TrainingRows("qa1", tokenizer, pool, 100, questions=30, fact_density=1.0, question_first=True)
    for seed in range(20):
        ids, _ = rows.row(60, np.random.default_rng(seed))
        assert ids.shape == (60,)
        assert ids[0] == tokenizer.bos_token_id


@given(facts=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_questions_are_chosen_once_each_in_order_and_the_last_one_always(facts, n, seed):
    asked = tuple((at, Question(f"Where is {at}?", "here", (0,))) for at in range(1, facts + 1))
    found = chosen(Story(("It rains.",) * facts, asked), n, np.random.default_rng(seed))
    assert [at for at, _ in found] == sorted({at for at, _ in found})
    assert len(found) == min(n, facts)
    assert found[-1] == asked[-1]


def test_without_background_questions_are_as_rare_as_asked_for(tokenizer):
    rows, facts, answers = TrainingRows("qa1", tokenizer, None, max_facts=10, questions=1), 0, 0
    for seed in range(20):
        ids, labels = rows.row(500, np.random.default_rng(seed))
        assert ids.shape == (500,)
        facts += len(facts_of(tokenizer, ids))
        answers += (labels != IGNORED).sum()
    assert facts / answers == pytest.approx(10, rel=0.25)


def test_real_stories_of_any_task_can_be_used(tokenizer, pool, babi):
    stories = read_stories(babi, "qa6", "train")
    ids, labels = TrainingRows("qa6", tokenizer, pool, stories=stories).row(400, np.random.default_rng(0))
    answers = labelled(tokenizer, labels)
    assert answers
    assert set(answers) <= {"yes", "no"}
    assert all(f"? {answer}." in tokenizer.decode(ids) for answer in answers)


def test_real_stories_are_answered_rightly(tokenizer, pool, babi):
    rows = TrainingRows("qa2", tokenizer, pool, max_facts=20, stories=read_stories(babi, "qa2", "train"))
    for seed in range(50):
        written, right = answers_of("qa2", tokenizer.decode(rows.row(400, np.random.default_rng(seed))[0]))
        assert written == right != []


def test_a_question_behind_the_last_fact_of_a_real_story_is_asked(tokenizer, pool):
    facts = ("Mary went to the garden.", "John went to the office.")
    story = Story(facts, ((2, Question("Where is Mary?", "garden", (0,))),))
    _, labels = TrainingRows("qa1", tokenizer, pool, stories=[story]).row(100, np.random.default_rng(0))
    assert labelled(tokenizer, labels) == ["garden"]


def test_each_real_story_is_told_and_no_more_facts_of_it_than_are_wanted(tokenizer, pool):
    stories = []
    for actor in ("Mary", "John"):
        question = Question(f"Where is {actor}?", "garden", (0,))
        stories.append(Story((f"{actor} went to the garden.",) * 3, ((1, question), (3, question))))
    rows = TrainingRows("qa1", tokenizer, pool, max_facts=2, stories=stories)
    told = [facts_of(tokenizer, rows.row(100, np.random.default_rng(seed))[0]) for seed in range(10)]
    assert {len(facts) for facts in told} == {1}  # the second question needs a fact too many
    assert {facts[0] for facts in told} == {story.facts[0] for story in stories}


def test_same_seed_same_bytes_and_batches_are_rows(tokenizer, pool):
    rows = TrainingRows("qa2", tokenizer, pool)
    one, two = (rows.batch(4, 300, np.random.default_rng(9)) for _ in range(2))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in two]
    assert one[0].shape == one[1].shape == (4, 300)
    assert len({row.tobytes() for row in one[0]}) == 4
    assert (one[0][0] == rows.row(300, np.random.default_rng(9))[0]).all()


def test_few_stories_are_drawn_for_a_row(tokenizer, pool, monkeypatch):
    """qa3 has the fewest questions: most stories of few facts have none."""
    drawn = []

    def counted(*args, **kwargs):
        drawn.append(kwargs["n_facts"])
        return simulate_dense(*args, **kwargs)

    monkeypatch.setattr("lm2.data.rows.simulate_dense", counted)
    TrainingRows("qa3", tokenizer, pool, max_facts=30).batch(32, 512, np.random.default_rng(0))
    assert len(drawn) < 32 * 10
    assert 1 <= min(drawn) < 8
    assert 22 < max(drawn) <= 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_facts": 0}, r"max_facts \(0\) and questions \(5\) must be at least 1"),
        ({"fact_density": 1.5}, r"at most 1, not 1\.5"),
        ({"background": None, "stories": []}, "give background text, or leave stories out"),
    ],
)
def test_bad_options_are_refused(tokenizer, pool, options, message):
    with pytest.raises(ValueError, match=message):
        TrainingRows("qa1", tokenizer, **{"background": pool, **options})


@pytest.mark.parametrize("task", SIMULATED)
def test_every_task_has_rows_at_the_defaults(task, tokenizer, pool):
    rows, rng = TrainingRows(task, tokenizer, pool), np.random.default_rng(0)
    for _ in range(20):
        _, labels = rows.row(400, rng)
        assert (labels != IGNORED).any()


def test_rows_too_short_for_a_question_are_refused(tokenizer, pool):
    with pytest.raises(ValueError, match=r"No question of qa3 fits into 30 tokens at a fact_density of 0\.5"):
        TrainingRows("qa3", tokenizer, pool).row(30, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"No question of qa1 fits into 5 tokens at a fact_density of 1 "):
        TrainingRows("qa1", tokenizer, None).row(5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="Unknown task 'qa14'"):
        TrainingRows("qa14", tokenizer, pool).row(300, np.random.default_rng(0))
    with pytest.raises(ValueError, match="A story of qa4 has 2 facts, too few for a row: give background text"):
        TrainingRows("qa4", tokenizer, None)


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_samples_end_in_the_question_and_have_their_facts(task, tokenizer, pool):
    for made in evaluation_samples(task, 20, 900, 3, tokenizer, pool):
        sample = made.sample
        assert made.n_tokens == 900
        assert tokenizer.decode(made.ids[made.question_offset :]) == f" {sample.question}"
        for fact, at in zip(sample.facts, made.fact_offsets, strict=True):
            assert tokenizer.decode(made.ids[at:]).startswith(f" {fact}")
        assert tokenizer.decode([made.answer_id]).strip() == sample.answer == solve(task, sample.facts, sample.question)
        assert made.fact_offset == made.fact_offsets[max(sample.support)]
        assert made.distance == made.question_offset - made.fact_offset > 0


@pytest.mark.parametrize(("task", "n_tokens"), [("qa1", 256), ("qa1", 290), ("qa1", 257), ("qa2", 640)])
def test_decisive_fact_lies_where_it_was_asked_for(tokenizer, pool, task, n_tokens):
    border = (n_tokens - 1) // 64 * 64
    for made in evaluation_samples(task, 30, n_tokens, 0, tokenizer, pool, "earlier", 64):
        fact = made.sample.facts[max(made.sample.support)]
        assert tokenizer.decode(made.ids[made.fact_offset : border]).startswith(f" {fact}")
    if n_tokens - border > 12:
        for made in evaluation_samples(task, 30, n_tokens, 0, tokenizer, pool, "own", 64):
            assert made.fact_offset >= border


def test_the_border_counts_the_token_that_opens_the_text(tokenizer):
    """Between single words facts lie anywhere, so also just before and just behind it."""
    words = SimpleNamespace(sentences=lambda rng: repeat([9]))
    earlier, own = (evaluation_samples("qa1", 300, 64, 0, tokenizer, words, where, 16) for where in ("earlier", "own"))
    assert min(made.fact_offset for made in own) == 48
    facts = [made.sample.facts[max(made.sample.support)] for made in earlier]
    lengths = [len(tokenizer(f" {fact}", add_special_tokens=False)["input_ids"]) for fact in facts]
    assert max(made.fact_offset + length for made, length in zip(earlier, lengths, strict=True)) == 48


def test_a_fact_that_begins_at_the_border_is_the_last_segments_own():
    offsets = _draw_where(np.array([64]), np.array([6]), 0, "own", 64, np.random.default_rng(0))
    assert offsets.tolist() == [64]


def test_each_sample_is_another_and_any_question_of_a_story_may_be_asked(tokenizer):
    made = evaluation_samples("qa1", 30, None, 0, tokenizer)
    assert len({one.ids.tobytes() for one in made}) == 30
    assert len({len(one.sample.facts) for one in made}) == 5


def test_samples_that_do_not_fit_end_the_search_only_where_many_follow_one_another(tokenizer, pool, monkeypatch):
    monkeypatch.setattr("lm2.data.rows.TRIES", 25)
    lengths = sorted(one.n_tokens for one in evaluation_samples("qa1", 100, None, 0, tokenizer))
    assert len(evaluation_samples("qa1", 60, lengths[50], 0, tokenizer, pool)) == 60


def test_more_samples_begin_with_the_same_ones(tokenizer, pool):
    few, many, other = (
        evaluation_samples("qa1", n, 300, seed, tokenizer, pool) for n, seed in ((5, 1), (9, 1), (5, 2))
    )
    assert [made.ids.tobytes() for made in few] == [made.ids.tobytes() for made in many[:5]]
    assert few[0].ids.tobytes() != other[0].ids.tobytes()


def test_without_length_there_is_no_background(tokenizer):
    for made in evaluation_samples("qa2", 10, None, 0, tokenizer):
        text = "".join(f" {text}" for text in (*made.sample.facts, made.sample.question))
        assert tokenizer.decode(made.ids) == f"<bos>{text}"


def test_real_samples_are_taken_in_order_and_too_long_ones_passed_over(tokenizer, pool, babi):
    real = list(samples("qa2", read_stories(babi, "qa2", "test")))
    made = evaluation_samples("qa2", 100, 200, 0, tokenizer, pool, real=real)
    places = [real.index(one.sample) for one in made]
    assert places == sorted(places)
    assert len(places) == 100 < places[-1]
    with pytest.raises(ValueError, match=r"Only \d+ of 1000 samples of qa2 fit into 200 tokens"):
        evaluation_samples("qa2", 1000, 200, 0, tokenizer, pool, real=real)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "late"}, "where is 'any', 'earlier' or 'own', not 'late'"),
        ({"where": "own"}, "where='own' needs segment_length and n_tokens, they are None and 300"),
        ({"where": "earlier", "segment_length": 300}, "300 tokens in segments of 300 are one segment"),
        ({"background": None}, "exactly 300 tokens needs background text"),
        ({"n_tokens": 9}, "Only 0 of 5 samples of qa1 fit into 9 tokens"),
    ],
)
def test_impossible_evaluations_are_refused(tokenizer, pool, options, message):
    arguments = {"n_tokens": 300, "seed": 0, "tokenizer": tokenizer, "background": pool, **options}
    with pytest.raises(ValueError, match=message):
        evaluation_samples("qa1", 5, **arguments)


def test_the_question_may_also_come_first(tokenizer, pool):
    rows = TrainingRows("qa1", tokenizer, pool, questions=3, question_first=True)
    for seed in range(20):
        ids, labels = rows.row(200, np.random.default_rng(seed))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        question = text[: text.index("?") + 1].strip()
        assert text.rstrip(". ").rsplit("?", 1)[0].endswith(question.rstrip("?"))
        assert text.count(question) >= 2
        assert (labels[: len(tokenizer(question)["input_ids"])] == IGNORED).all()
        assert ids.shape == (200,)
