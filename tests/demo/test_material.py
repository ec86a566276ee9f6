"""The texts of the demo: training and evaluation share nothing."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

from lm2.data.background import GeneratedSentences
from lm2.demo import material
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
        assert len(held_out.books[0]) == pytest.approx(len(texts[0]) / 5, abs=1)
    else:
        assert len(held_out.books) == 1 + (n > 5)
        assert sorted(training.books + held_out.books) == sorted(texts)


def test_without_books_the_built_in_sentences_are_used():
    training, held_out = sources_of(DemoConfig())
    assert isinstance(training, GeneratedSentences)
    assert isinstance(held_out, GeneratedSentences)


def test_training_and_evaluation_never_draw_alike(tmp_path, monkeypatch):
    """Each seed of the demo has a seed for either, and each is drawn from its own source."""
    drawn, asked = [], []
    pool = SimpleNamespace(ids=np.arange(3), starts=np.arange(4))
    monkeypatch.setattr(material, "TokenPool", lambda source, words, seed, n: drawn.append((source, seed)) or pool)
    monkeypatch.setattr(material, "evaluation_samples", lambda *given: asked.append(given[3]))
    monkeypatch.setattr(material, "_save_set", lambda *given: None)
    monkeypatch.setattr(material, "load_tokenizer", lambda folder: None)
    sentences, words = [], SimpleNamespace(save_pretrained=lambda folder: None)
    monkeypatch.setattr(material, "train_tokenizer", lambda texts, size: sentences.append(next(iter(texts))) or words)
    sources = material.Sources(*(SimpleNamespace(sentences=lambda rng, name=name: iter([name])) for name in "th"))
    for seed in range(3):
        options = DemoConfig(out=tmp_path / str(seed), seed=seed, segments=(1, 2))
        options.out.mkdir()
        prepare_training(options, recipe_of(options), sources)
        prepare_evaluation(options, recipe_of(options), sources)
    assert sentences == ["t"] * 3
    assert [source for source, _ in drawn] == [sources.training, sources.held_out] * 3
    assert len({seed for _, seed in drawn}) == 6
    assert asked == [seed for _, seed in drawn[1::2] for _ in range(3)]


def test_real_questions_are_asked_in_an_order_of_the_seed(tmp_path):
    write_babi(tmp_path / "babi")
    story = "1 Mary moved to the garden.\n2 Where is Mary? \tgarden\t1\n3 John went to the office.\n"
    text = "".join(f"{story}4 Where is {who}? \t{where}\n" for who, where in [("John", "office\t3")] * 8)
    (tmp_path / "babi/qa1_single-supporting-fact_test.txt").write_text(text, encoding="utf-8")
    orders = [
        [sample.question for sample in material._real_samples(DemoConfig(seed=seed, babi=tmp_path / "babi"))]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0])


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
