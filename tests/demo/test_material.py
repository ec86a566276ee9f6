"""The texts of the demo: training and evaluation share nothing."""

import gzip
import json

import numpy as np
import pytest

from lm2.data.background import GeneratedSentences
from lm2.demo.config import DemoConfig
from lm2.demo.material import load_set, load_tokenizer, prepare_evaluation, prepare_training, sources_of, training_rows
from lm2.demo.recipe import recipe_of
from tests.data.texts import answers_of, generated


def write_books(path, texts):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def write_babi(folder):
    """The smallest files of qa1."""
    folder.mkdir()
    for split in ("train", "test"):
        text = "1 Mary moved to the garden.\n2 Where is Mary? \tgarden\t1\n"
        (folder / f"qa1_single-supporting-fact_{split}.txt").write_text(text, encoding="utf-8")


def books(n: int) -> list[str]:
    return [f"book{i}. " + " ".join(generated(40, seed=i)) for i in range(n)]


def test_books_of_the_two_files_are_used_as_they_are(tmp_path):
    texts = books(3)
    write_babi(tmp_path / "babi")
    write_books(tmp_path / "train.jsonl.gz", texts[:2])
    write_books(tmp_path / "test.jsonl.gz", texts[2:])
    training, held_out = sources_of(DemoConfig(babi=tmp_path / "babi", books=tmp_path))
    assert (training.books, held_out.books) == (texts[:2], texts[2:])


@pytest.mark.parametrize("n", [1, 2, 7])
def test_books_without_a_split_are_split(tmp_path, n):
    texts = books(n)
    write_babi(tmp_path / "babi")
    write_books(tmp_path / "all.jsonl.gz", texts)
    training, held_out = sources_of(DemoConfig(babi=tmp_path / "babi", books=tmp_path))
    assert training.books
    assert held_out.books
    if n == 1:
        assert training.books[0] + held_out.books[0] == texts[0]
    else:
        assert sorted(training.books + held_out.books) == sorted(texts)


def test_without_books_the_built_in_sentences_are_used():
    training, held_out = sources_of(DemoConfig())
    assert isinstance(training, GeneratedSentences)
    assert isinstance(held_out, GeneratedSentences)


def test_evaluation_sets_ask_what_the_text_decides(tmp_path):
    options = DemoConfig(out=tmp_path, questions=12, segments=(1, 3))
    recipe = recipe_of(options)
    sources = sources_of(options)
    prepare_training(options, recipe, sources)
    prepare_evaluation(options, recipe, sources)
    tokenizer, T = load_tokenizer(tmp_path), recipe.segment_length
    for where, segments in options.columns():
        asked = load_set(tmp_path, where, segments)
        assert asked.ids.shape == (12, segments * T)
        assert asked.constant == np.unique(asked.words, return_counts=True)[1].max() / 12
        for ids, answer, word in zip(asked.ids, asked.answers, asked.words, strict=True):
            assert tokenizer.decode([answer]) == f" {word}"
            written, right = answers_of("qa1", tokenizer.decode([*ids, answer]) + ".")
            assert written == right == [word]
        if where == "own":
            assert asked.distances.max() < T
        else:  # the question's end closes the text, so the whole last segment lies between
            assert asked.distances.min() > T - 5


@pytest.mark.slow
def test_real_questions_are_those_of_the_test_files(tmp_path, shared_data):
    pytest.importorskip("nltk")
    babi = shared_data / "babi" / "tasks_1-20_v1-2_en.zip"
    write_books(tmp_path / "all.jsonl.gz", books(6))
    options = DemoConfig(out=tmp_path / "out", babi=babi, books=tmp_path, questions=20, segments=(4,))
    options.out.mkdir()
    recipe, sources = recipe_of(options), sources_of(options)
    prepare_training(options, recipe, sources)
    prepare_evaluation(options, recipe, sources)
    from lm2.data.babi import read_stories, samples

    real = {(s.question, s.answer, s.facts[max(s.support)]) for s in samples("qa1", read_stories(babi, "qa1", "test"))}
    asked = load_set(options.out, "earlier", 4)
    assert {*zip(asked.questions, asked.words, asked.facts, strict=True)} <= real
    assert len(training_rows(options, recipe).stories) == 2000
