"""Sources from words, and the texts in their files."""

import gzip
import json

import pytest

from lm2.data.sources import FileSource, checked, parse_source


@pytest.mark.parametrize(
    ("text", "name", "place", "weight"),
    [
        ("books/train.jsonl.gz", "train", "books/train.jsonl.gz", None),
        ("web=data/pages@3", "web", "data/pages", 3.0),
        ("a=b.txt", "a", "b.txt", None),
        ("dir/x=y.txt", "x=y", "dir/x=y.txt", None),
        ("pages@0.5", "pages", "pages", 0.5),
        ("hub:me/set", "set", "hub:me/set/default/train", None),
        ("w=hub:me/set/small/test@2", "w", "hub:me/set/small/test", 2.0),
        ("hub:me/set/small", "small", "hub:me/set/small/train", None),
    ],
)
def test_sources_are_read_from_words(text, name, place, weight):
    source = parse_source(text)
    assert (source.name, source.place, source.weight) == (name, place, weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'' is no source"),
        ("=x", r"'=x' is no source"),
        ("x@0", r"weight of x is 0: a weight must be above 0"),
        ("x@-2", r"weight of x is -2"),
        ("hub:alone", r"'hub:alone' names no data set of the hub"),
        ("hub:a/b/c/d/e", r"names no data set of the hub"),
    ],
)
def test_words_that_name_no_source_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_source(text)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    data = ("Mary" if name == "a.txt" else json.dumps({"text": "Mary"})).encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (part,) = FileSource("x", tmp_path / name).parts()
    assert [text for text, _ in part.documents()] == ["Mary"]


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ("\ud83d", r"^x: \\ud83d is half of a character: repair the line or remove it"),
        ("\udc7f", r"^x: \\udc7f is half of a character: repair the line or remove it"),
        (
            "\udc80",
            r"^x: \\udc80 is the byte 0x80, which is not UTF-8, or half of a character: convert the text, or repair",
        ),
        ("\udcff", r"^x: \\udcff is the byte 0xff, which is not UTF-8, or half"),
        ("\udd00", r"^x: \\udd00 is half of a character"),
    ],
)
def test_half_a_character_is_told_from_a_byte(half, message):
    assert checked("Zoë 😀", "x") == "Zoë 😀"
    with pytest.raises(ValueError, match=message):
        checked(f"Mary {half}", "x")
