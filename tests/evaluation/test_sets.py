import gzip
import json
from collections import defaultdict

import pytest

from lm2.data.babi import read_stories, samples
from lm2.evaluation.babilong import LocalBabilong
from lm2.evaluation.sets import max_facts, released_rows

GPT4, PHI3, GPT2 = "openai/gpt-4-0125-preview", "microsoft/Phi-3-mini-128k-instruct", "gpt2"


@pytest.fixture(scope="module")
def published(results):
    """(question, target) of each row of the released sets, as far as published outputs show them."""
    rows = defaultdict(dict)
    with gzip.open(results / "predictions_sample.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows[row["model"], row["task"], row["length"]][row["i"]] = (row["question"], row["target"])
    return {cell: [by_row[i] for i in range(len(by_row))] for cell, by_row in rows.items()}


def made(babi_files, background, task, length, size):
    source = LocalBabilong(babi_files, background, size=size)
    return [(sample.question, sample.target) for sample in source.samples(task, length)]


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3", "qa4", "qa5"])
@pytest.mark.parametrize(("model", "length"), [(GPT4, "0k"), (GPT4, "1k"), (GPT4, "2k"), (PHI3, "64k")])
def test_sets_of_100_have_the_published_questions(babi_files, background, published, model, task, length):
    assert made(babi_files, background, task, length, 100) == published[model, task, length]


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3", "qa4", "qa5"])
@pytest.mark.parametrize("length", ["0k", "1k"])
def test_sets_of_1000_have_the_published_questions(babi_files, background, published, task, length):
    assert made(babi_files, background, task, length, 1000) == published[GPT2, task, length]


RELEASED = {
    ("qa1", "0k"): 1000,
    **{(f"qa{n}", "0k"): 1000 for n in range(6, 11)},
    **{(f"qa{n}", "0k"): 999 for n in (2, 3, 4, 5, 11, 12, 13)},
    **{("qa2", "1k"): 999, ("qa3", "1k"): 862, ("qa4", "1k"): 999, ("qa5", "1k"): 997},
    **{("qa3", "2k"): 998, ("qa5", "2k"): 999, ("qa3", "4k"): 999},
}


@pytest.mark.parametrize(("task", "length"), RELEASED)
def test_sets_of_1000_have_the_released_number_of_samples(babi_files, task, length):
    most = max_facts(length)
    questions = samples(task, read_stories(babi_files, task, "test"))
    n_rows = sum(most is None or len(question.facts) <= most for question in questions)
    assert len(released_rows(task, length, 1000, n_rows)) == RELEASED[task, length]


def test_the_number_of_facts_is_limited_by_the_length():
    assert [max_facts(length) for length in ("0k", "1k", "2k", "1M")] == [None, 86, 211, 124_961]


def test_tasks_without_published_rows_take_the_first_hundred():
    assert released_rows("qa7", "4k", 100, 1000) == list(range(100))


def test_other_sizes_and_tasks_are_refused():
    with pytest.raises(ValueError, match="100 and of 1,000 samples a cell, not of 50"):
        released_rows("qa1", "1k", 50, 1000)
    with pytest.raises(ValueError, match="Unknown task 'qa0'"):
        released_rows("qa0", "1k", 100, 1000)
