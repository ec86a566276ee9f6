import csv
import gzip
import json
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.data.babi import read_stories, samples
from lm2.evaluation.scoring import RULES, answer_part, is_right, labels
from lm2.evaluation.sets import TASKS


@pytest.fixture(scope="module")
def published(results) -> list[dict]:
    with gzip.open(results / "predictions_sample.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def test_files(babi_files):
    return {task: list(samples(task, read_stories(babi_files, task, "test"))) for task in TASKS}


def percent(rule, task, questions, output=None):
    right = [is_right(rule, task, q.question, q.answer, q.answer if output is None else output) for q in questions]
    return round(100 * sum(right) / len(right), 1)


def test_all_published_verdicts_are_reproduced(published):
    assert len(published) == 67_890
    wrong = [
        row
        for row in published
        if is_right("official", row["task"], row["question"], row["target"], row["output"]) != row["correct"]
    ]
    assert not wrong


def test_published_cells_are_reproduced(published, results):
    """Each cell of the 67,890 outputs is found, to the decimal, among the scored cells of its model."""
    with open(results / "scored_predictions.csv", encoding="utf-8") as file:
        cells = defaultdict(set)
        for row in csv.DictReader(file):
            cell = row["model"], row["task"], row["length"]
            cells[cell].add((int(row["n"]), float(row["accuracy_official_rule"])))
    verdicts = defaultdict(list)
    for row in published:
        verdict = is_right("official", row["task"], row["question"], row["target"], row["output"])
        verdicts[row["model"], row["task"], row["length"]].append(verdict)
    assert len(verdicts) == 100
    for cell, right in verdicts.items():
        accuracy = 100 * sum(right) / len(right)
        assert any(n == len(right) and abs(accuracy - x) <= 0.0501 for n, x in cells[cell]), cell


def test_whole_words_change_few_published_verdicts(published):
    changed = Counter(
        row["task"]
        for row in published
        if is_right("word", row["task"], row["question"], row["target"], row["output"]) != row["correct"]
    )
    assert changed == {"qa7": 45, "qa5": 29, "qa1": 1}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_model_gets_everything_except_qa7_under_the_official_rule(test_files, rule, task):
    expected = 53.2 if (rule, task) == ("official", "qa7") else 100.0
    assert percent(rule, task, test_files[task]) == expected


CONSTANT = {
    **{"qa1": 18.7, "qa2": 18.7, "qa3": 21.5, "qa4": 17.7, "qa5": 18.9},
    **{"qa6": 50.3, "qa7": 48.8, "qa8": 33.6, "qa9": 63.8, "qa10": 43.7},
}


@pytest.mark.parametrize("task", CONSTANT)
def test_the_commonest_answer_gets_the_known_share(test_files, task):
    answer, _ = Counter(q.answer for q in test_files[task]).most_common(1)[0]
    assert percent("exact", task, test_files[task], answer) == CONSTANT[task]


def test_always_none_gets_95_percent_of_qa7_under_the_substring_rule(test_files):
    assert percent("substring", "qa7", test_files["qa7"], "none") == 95.6
    assert percent("official", "qa7", test_files["qa7"], "none") == 0.0
    assert percent("word", "qa7", test_files["qa7"], "none") == 46.8


def test_labels_cover_every_answer_of_the_files(test_files):
    for task, questions in test_files.items():
        answers = {q.answer.lower() for q in questions}
        single = answers if task == "qa19" else {part for answer in answers for part in answer.split(",")}
        assert single == set(labels(task)), task


@pytest.mark.parametrize(
    ("rule", "task", "question", "target", "output", "right"),
    [
        ("official", "qa1", "Where is Mary? ", "kitchen", "The Kitchen. Not the office.", True),
        ("official", "qa1", "Where is Mary? ", "kitchen", "kitchen or office", False),
        ("official", "qa1", "Where is Mary? ", "kitchen", "", False),
        ("official", "qa3", "Where was the milk before the office? ", "kitchen", "before the office: kitchen", True),
        ("official", "qa1", "Where is Mary? ", "kitchen", "kitchen<context>office", True),
        ("official", "qa1", "Where is Mary? ", "kitchen", "kitchen question office", False),
        ("official", "qa8", "What is Mary carrying? ", "apple,milk", "milk and apple", True),
        ("official", "qa8", "What is Mary carrying? ", "apple,milk", "apple", False),
        ("official", "qa8", "What is Mary carrying? ", "apple,milk", "apple, milk, football", False),
        ("official", "qa19", "How do you go from the garden to the office?", "s,w", "s,w", True),
        ("official", "qa6", "Is Mary in the office? ", "yes", "yes, I know", False),
        ("word", "qa6", "Is Mary in the office? ", "yes", "yes, I know", True),
        ("exact", "qa1", "Where is Mary? ", "kitchen", " kitchen<|endoftext|>office", True),
        ("exact", "qa1", "Where is Mary? ", "kitchen", "Kitchen", False),
        ("exact", "qa1", "Where is Mary? ", "kitchen", "kitchen.", False),
        ("substring", "qa1", "Where is Mary? ", "kitchen", "office, KITCHEN", True),
    ],
)
def test_rules(rule, task, question, target, output, right):
    assert is_right(rule, task, question, target, output) is right


@given(output=st.text(), task=st.sampled_from(TASKS), rule=st.sampled_from([*RULES]))
def test_any_output_is_judged(output, task, rule):
    assert is_right(rule, task, "Where is Mary? ", labels(task)[0], output) in (True, False)
    assert "." not in answer_part(output)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="rule 'fuzzy': the rules are official, word, exact, substring"):
        is_right("fuzzy", "qa1", "", "", "")
    with pytest.raises(ValueError, match=r"task 'qa21'.*qa1 to qa20"):
        is_right("exact", "qa21", "", "", "")
