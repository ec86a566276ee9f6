"""MMLU's CSV files: in a folder or a zip, and what is damaged is named."""

import zipfile
from pathlib import Path

import pytest

from lm2.evaluation.mmlu import LETTERS, read_questions
from lm2.evaluation.subjects import SUBJECTS
from tests.evaluation import plain_mmlu


@pytest.fixture
def data(tmp_path) -> Path:
    return plain_mmlu.write_csv(tmp_path / "mmlu", ["anatomy"], questions=3)


def in_a_zip(folder: Path) -> Path:
    place = folder.with_suffix(".zip")
    with zipfile.ZipFile(place, "w") as archive:
        for path in folder.rglob("*.csv"):
            archive.write(path, f"data/{path.relative_to(folder)}")
    return place


def test_the_real_files_have_the_published_counts(shared_data):
    place = shared_data / "mmlu" / "mmlu.zip"
    answers, total = dict.fromkeys(range(4), 0), {"dev": 0, "test": 0}
    for subject in SUBJECTS:
        for split in total:
            questions = read_questions(place, split, subject)
            total[split] += len(questions)
            for question in questions if split == "test" else []:
                answers[question.answer] += 1
    assert total == {"dev": 285, "test": 14_042}
    assert list(answers.values()) == [3222, 3462, 3582, 3776]


def test_a_folder_and_a_zip_are_the_same(data):
    for place in (in_a_zip(data), data, data.parent):
        questions = read_questions(place, "test", "anatomy")
        assert [(q.text, *q.choices, LETTERS[q.answer]) for q in questions] == [
            tuple(row) for row in plain_mmlu.rows_of(data / "test/anatomy_test.csv")
        ]


def test_a_folder_whose_name_ends_alike_is_another(data, tmp_path):
    """`latest/` ends as `test/` does, which here is at the top of the zip."""
    place = tmp_path / "mmlu.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("latest/anatomy_test.csv", "q,a,b,c,d,A\n")
        archive.write(data / "test/anatomy_test.csv", "test/anatomy_test.csv")
    assert read_questions(place, "test", "anatomy") == read_questions(data, "test", "anatomy")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q,a,b,c,d,E\n", r"anatomy_test.csv:2: .*6 fields and ends in 'E'"),
        ("q,a,b,c,A\n", r"anatomy_test.csv:2: .*5 fields and ends in 'A'"),
        ("q,a,b,c,d,\n", r"anatomy_test.csv:2: .*6 fields and ends in ''"),
        ("q,a,b,c,d,BC\n", r"anatomy_test.csv:2: .*6 fields and ends in 'BC'"),
    ],
)
def test_a_damaged_line_is_named(line, said, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/anatomy_test.csv").write_text(f"q,a,b,c,d,B\n{line}")
    with pytest.raises(ValueError, match=said):
        read_questions(tmp_path, "test", "anatomy")


def test_what_is_no_data_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"has no dev/anatomy_dev.csv"):
        read_questions(tmp_path, "dev", "anatomy")
    broken = tmp_path / "mmlu.zip"
    broken.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"mmlu.zip is not a zip file, or cut short"):
        read_questions(broken, "dev", "anatomy")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/anatomy_dev.csv").touch()
    with pytest.raises(ValueError, match="holds 0 questions"):
        read_questions(tmp_path, "dev", "anatomy")


@pytest.mark.parametrize("place", [Path, in_a_zip])
def test_a_byte_order_mark_is_no_text(data, place):
    path = data / "test/anatomy_test.csv"
    plain = read_questions(data, "test", "anatomy")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_questions(place(data), "test", "anatomy") == plain


@pytest.mark.parametrize("place", [Path, in_a_zip])
def test_a_file_that_is_not_utf8_is_named(data, place):
    (data / "test/anatomy_test.csv").write_bytes(b"caf\xe9,a,b,c,d,B\n")
    with pytest.raises(ValueError, match=r"mmlu.*anatomy_test\.csv is damaged or cut short .* 0xe9 in position 3"):
        read_questions(place(data), "test", "anatomy")
