"""What a model of books knows of people, counted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lm2.data.babi import Question, Sample, Story, samples
from lm2.data.people import RELATIONS, tell
from tests.benchmarks.scripts import script
from tests.data.texts import generated

MODEL = Path(__file__).parents[2] / "models" / "lm2-books"


@pytest.fixture(scope="module")
def facts():
    return script("book_facts")


def asked(*told: str, answer: str = "Rome", support: int = 0) -> Sample:
    question = Question("Question: Where does Alma live? Answer:", answer, (support,))
    (sample,) = samples("facts", [Story(told, ((len(told), question),))])
    return sample


def test_every_fact_and_value_is_of_one_kind(facts):
    story = tell(72, np.random.default_rng(0))
    for fact in story.facts:
        forms = RELATIONS[facts.kind(fact)].told
        assert any(fact.startswith(form.split("{value}")[0].format(name=fact.split()[0])) for form in forms)
    for _, question in story.questions:
        assert facts.kind(story.facts[question.support[0]]) == facts.kind(question.answer)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (("Alma lives in Rome.",), False),
        (("Alma lives in Rome.", "Bruno keeps a dog."), False),
        (("Alma lives in Rome.", "Bruno has come back to Rome."), True),
        (("Alma lives in Rome.", "Bruno has a small house in Oslo.", "Cyril lives in Paris."), True),
    ],
)
def test_the_same_told_of_others(facts, told, expected):
    assert facts.told_of_others(asked(*told)) is expected


def test_a_constant_answer_is_one_for_each_question(facts):
    of = [asked(f"Alma lives in {city}.", answer=city) for city in ("Rome", "Rome", "Oslo")]
    dog = asked("Alma keeps a dog.", answer="dog")
    assert facts.constants([*of, dog, dog]) == 4


def test_lengths_and_numbers_of_questions_belong_together(facts):
    with pytest.raises(ValueError, match="--segments are 2 and --samples 1"):
        facts.main(facts.Options(Path("none"), segments=(2, 4), samples=(10,)))


def test_the_cards_table_is_of_the_numbers(facts):
    numbers = json.loads((MODEL.parents[1] / "docs/results/book_facts.json").read_text(encoding="utf-8"))
    assert facts.page(numbers["rows"]) in (MODEL / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_shipped_model_remembers_and_is_lost_without_memory(facts, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(MODEL, run / "model")
    shutil.copytree(
        MODEL, run / "backbone" / "checkpoint-1"
    )  # with its memory: it is given a single segment all the same
    (tmp_path / "book.txt").write_text(" ".join(generated(3000)), encoding="utf-8")
    out = tmp_path / "facts.json"
    facts.main(facts.Options(tmp_path / "book.txt", run, segments=(2,), samples=(60,), out=out))
    assert "| 2 | 60 |" in capsys.readouterr().out
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert row["right"]["the model"] >= 54
    assert row["right"]["its last segment alone"] <= 18
    assert row["right"]["the backbone"] == row["right"]["its last segment alone"]
    assert 0.85 * row["alike"] <= row["right_alike"]["the model"] <= row["alike"] <= row["questions"] == 60
    assert row["alike"] >= 20
