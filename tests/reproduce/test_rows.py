"""Rows of all tasks: exact sizes, right answers, the frame of evaluation, stories of the split that was asked for."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.background import GeneratedSentences
from lm2.data.pool import TokenPool
from lm2.data.rows import IGNORED
from lm2.data.solver import solve
from lm2.data.world import TASKS
from lm2.evaluation.codec import TokenStream
from lm2.evaluation.prompts import whole_prompt
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.material import Texts, new_tokenizer, words
from lm2.reproduce.rows import SHORT, JointRows, short_story
from lm2.reproduce.sizes import FULL, SMOKE

T = 64
SENTENCES = GeneratedSentences()
TOKENIZER = new_tokenizer(ReproduceConfig(), SMOKE, Texts(SENTENCES, SENTENCES, SENTENCES))
POOL = TokenPool(SENTENCES, TOKENIZER, 1, 5000)
ROWS = {task: JointRows(TOKENIZER, POOL, T, {task: []}) for task in TASKS}
FACT = (
    r"(?:Mary|John|Daniel|Sandra|Bill|Fred|Jeff|Julie) (?:(?:went|went back|moved|journeyed|travelled) to the \w+"
    r"|(?:got|grabbed|took|picked up|left|dropped|discarded|put down) the (?:football|apple|milk)(?: there)?"
    r"|(?:gave|handed|passed) the \w+ to \w+"
    r"|is (?:no longer |not )?in the \w+|is either in the \w+ or the \w+)\.|The \w+ is \w+ of the \w+\."
)
EVENT = re.compile(rf"({FACT})|((?:Where|What|Who|Is|How many) [^?.]*\?) ([\w,]+)")


def answers_of(task: str, text: str) -> list[tuple[str, str]]:
    """(answer in the text, answer of the solver) of each question."""
    facts, found = [], []
    for fact, question, answer in EVENT.findall(text):
        if fact:
            facts.append(fact)
        else:
            found.append((answer, solve(task, facts, question)))
    return found


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    kind=st.sampled_from(("pair", "dense", "scattered")),
    segments=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_a_row_has_its_width_and_answers_that_the_solver_gives(task, kind, segments, seed):
    ids, labels = ROWS[task].row(kind, segments, random.Random(seed))
    assert len(ids) == len(labels) == ROWS[task].width(kind, segments) == segments * T
    assert all(label in (IGNORED, i) for i, label in zip(ids, labels, strict=True))
    found = answers_of(task, TOKENIZER.decode(ids))
    assert found
    assert all(written == right for written, right in found)
    words = sum(written.count(",") + 1 for written, _ in found)
    assert sum(label != IGNORED for label in labels) == words + 1  # and the end token


@settings(max_examples=25, deadline=None)
@given(task=st.sampled_from(TASKS), segments=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_repeated_rows_tell_before_the_last_segment_and_ask_in_it(task, segments, seed):
    ids, labels = ROWS[task].row("repeated", segments, random.Random(seed))
    border = (segments - 1) * T
    assert len(ids) == ROWS[task].width("repeated", segments)
    assert all(label == IGNORED for label in labels[:border])
    assert EVENT.findall(TOKENIZER.decode(ids[:border]))
    ((_, question, answer),) = EVENT.findall(TOKENIZER.decode(ids[border:]))
    told = [fact for fact, *_ in EVENT.findall(TOKENIZER.decode(ids[:border])) if fact]
    story = told[: next(n for n in range(1, len(told) + 1) if told[:n] * (len(told) // n) == told)]
    assert answer == solve(task, story, question)


@pytest.mark.parametrize("task", TASKS)
def test_a_row_ends_as_evaluation_asks(task):
    ids, labels = ROWS[task].row("scattered", 3, random.Random(1))
    asked = len(ids) - labels[::-1].index(IGNORED)
    assert ids[asked:] == labels[asked:]
    assert ids[-1] == TOKENIZER.eos_token_id
    text = TOKENIZER.decode(ids[1:asked])
    context, question = text.removeprefix("<context>").rsplit(
        "</context>Question:", 1
    )  # a word of the frame takes its space with it
    prompt = whole_prompt(task, context.strip(), question.strip(), False, False, False)
    assert TOKENIZER(prompt)["input_ids"] == ids[:asked]


def test_the_stream_of_evaluation_reads_what_the_tokenizer_reads():
    text = "<context>\n" + "\n".join(f"Mary went to\nthe  garden, {i} times." for i in range(600)) + "\n</context>\n\n"
    stream, ids = TokenStream(TOKENIZER), []
    for at in range(0, len(text), 700):
        stream, more = stream.push(text[at : at + 700])
        ids += more
    stream, rest = stream.end("Question: Where is Mary?")
    assert ids + rest == TOKENIZER(text + "Question: Where is Mary?", add_special_tokens=False)["input_ids"]


def test_words_and_answers_are_single_tokens():
    for word in (*words(), "</context>", "Question:"):
        assert len(TOKENIZER(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word
    for task in TASKS:
        answer = short_story(task, np.random.default_rng(0)).questions[-1][1].answer
        assert len(TOKENIZER(f" {answer}", add_special_tokens=False)["input_ids"]) == answer.count(",") + 1


def test_the_longest_list_is_no_longer_than_what_may_be_generated():
    ids = TOKENIZER(" football,apple,milk", add_special_tokens=False)["input_ids"]
    assert len(ids) + 1 <= FULL.max_new_tokens
    assert TOKENIZER.decode(ids).strip() == "football,apple,milk"


@settings(max_examples=25, deadline=None)
@given(task=st.sampled_from(TASKS), seed=st.integers(0, 10**6))
def test_a_short_story_ends_with_a_question(task, seed):
    story = short_story(task, np.random.default_rng(seed))
    assert SHORT[task][0] <= len(story.facts) <= SHORT[task][1]
    assert story.questions[-1][0] == len(story.facts)
    if task == "qa1":
        assert len({fact.split()[0] for fact in story.facts}) == 2


def test_real_stories_are_told_and_those_of_a_task_only():
    from lm2.data.babi import Question, Story

    fact = "Mary journeyed to the hallway."
    rows = JointRows(TOKENIZER, POOL, T, {"qa1": [Story((fact,), ((1, Question("Where is Mary?", "hallway", (0,))),))]})
    texts = [TOKENIZER.decode(rows.row("scattered", 2, random.Random(i))[0]) for i in range(40)]
    only_real = [text for text in texts if re.findall(FACT, text) == [fact]]
    assert 8 < len(only_real) < 36


@pytest.mark.parametrize("segments", [1, 3, 8])
def test_quiet_text_is_background_of_exact_size(segments):
    ids = ROWS["qa1"].quiet(segments, random.Random(0))
    text = TOKENIZER.decode(ids)
    assert len(ids) == segments * T
    assert text.startswith("<bos><context> ")
    assert not EVENT.findall(text)
    assert not re.findall(FACT, text)
