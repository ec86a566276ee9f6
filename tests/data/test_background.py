import gzip
import json
import re
from itertools import islice

import numpy as np
import pytest

from lm2.data.background import BookSentences, read_books
from lm2.data.grammar import SENTENCES, WORDS
from lm2.data.tokenizer import babi_words
from tests.data.texts import generated

PARAGRAPH = "".join(f"This is sentence number {n}, and it has\n an end. " for n in range(200))


def first(source, n, seed=0):
    return list(islice(source.sentences(np.random.default_rng(seed)), n))


def test_generated_sentences_are_finished_and_varied():
    sentences = generated(3000)
    assert all(re.fullmatch(r"[A-Z][A-Za-z, ]+\.", sentence) for sentence in sentences)
    assert len(set(sentences)) > 2900
    assert len({word for sentence in sentences for word in sentence.split()}) > 500


def test_generated_sentences_never_name_a_person_place_or_object_of_babi():
    names = set(babi_words()[:13])
    assert {"Mary", "office", "milk"} < names
    words = {word for text in (*SENTENCES, *WORDS.values()) for word in re.findall(r"\w+", text)}
    assert not words & names


def test_every_slot_of_the_grammar_is_defined_and_used():
    used = set(re.findall(r"\{(\w+)\}", " ".join((*SENTENCES, *WORDS.values()))))
    assert used == set(WORDS)


def test_generated_sentences_follow_the_seed():
    assert generated(50, seed=3) == generated(50, seed=3)
    assert generated(50, seed=3) != generated(50, seed=4)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_books_are_read_from_every_form(tmp_path, name):
    text = PARAGRAPH if name == "a.txt" else json.dumps({"title": "A", "text": PARAGRAPH}) + "\n\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert read_books(tmp_path / name) == read_books(tmp_path) == [PARAGRAPH]


def test_books_come_in_the_order_of_their_files_and_blank_ones_not_at_all(tmp_path):
    for number in (3, 7, 1, 9, 4, 8, 2, 6, 5):
        (tmp_path / f"{number}.txt").write_text(" \n" if number == 4 else f"Book {number}.")
    assert read_books(tmp_path) == [f"Book {number}." for number in (1, 2, 3, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    data = (PARAGRAPH if name == "a.txt" else json.dumps({"text": PARAGRAPH})).encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_books(tmp_path / name) == [PARAGRAPH]


def test_book_sentences_are_whole_in_order_and_without_line_wraps(tmp_path):
    pytest.importorskip("nltk")
    (tmp_path / "a.txt").write_text(PARAGRAPH)
    source = BookSentences(tmp_path, chunk_chars=500)
    sentences = first(source, 100)
    matches = [re.fullmatch(r"This is sentence number (\d+), and it has an end\.", s) for s in sentences]
    assert all(matches)
    numbers = [int(match[1]) for match in matches]
    assert np.mean(np.diff(numbers) == 1) > 0.8
    assert len(set(numbers)) > 50
    assert sentences == first(source, 100)
    assert sentences != first(source, 100, seed=1)


def test_sentences_of_every_book_are_drawn_and_never_end(tmp_path):
    """Also after a thousand places of which a few have no sentence."""
    pytest.importorskip("nltk")
    (tmp_path / "a.txt").write_text("It rains here. " * 30)
    (tmp_path / "b.txt").write_text("It snows here. " * 30)
    sentences = first(BookSentences(tmp_path, chunk_chars=50), 2500)
    assert {*sentences} == {"It rains here.", "It snows here."}


def test_text_without_sentences_is_an_error_not_an_endless_loop(tmp_path):
    pytest.importorskip("nltk")
    (tmp_path / "a.txt").write_text("word " * 100)
    with pytest.raises(ValueError, match=r"no sentences: 1 books, 1000 places tried, 20000 characters"):
        first(BookSentences(tmp_path), 1)


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No background text at .*nowhere"):
        BookSentences(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no text: 0 files"):
        BookSentences(tmp_path)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(ValueError, match=r"a\.pdf: background text comes from files ending in \.txt"):
        BookSentences(tmp_path / "a.pdf")
    (tmp_path / "b.jsonl").write_text('{"text": "fine"}\n{"title": "no text"}\n')
    with pytest.raises(ValueError, match=r"b\.jsonl:2: expected a JSON object with a text field"):
        BookSentences(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("not json\n")
    with pytest.raises(ValueError, match=r"c\.jsonl:1: .*'not json"):
        BookSentences(tmp_path / "c.jsonl")


def test_what_is_damaged_is_named(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "fine"}\n{"text": "half \\ud83d here"}\n')
    with pytest.raises(ValueError, match=r"d\.jsonl:2: \\ud83d is half of a character"):
        read_books(tmp_path / "d.jsonl")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + bytes(range(65, 91)) * 90 + b'"}')[:-20])
    with pytest.raises(ValueError, match=r"e\.jsonl\.gz is damaged or cut short"):
        read_books(tmp_path / "e.jsonl.gz")
    (tmp_path / "f.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(ValueError, match=r"f\.txt is damaged or cut short"):
        read_books(tmp_path / "f.txt")


def test_real_books_give_sentences(shared_data):
    pytest.importorskip("nltk")
    sentences = first(BookSentences(shared_data / "books" / "validation.jsonl.gz"), 500)
    assert len(set(sentences)) > 450
    assert 40 < np.mean([len(sentence) for sentence in sentences]) < 400
