import zipfile

import pytest

from lm2.data.babi import parse_stories, read_stories, samples

STORY = "1 Mary went to the office.\n2 John got the milk there.\n3 Where is Mary? \toffice\t1\n"


def test_story_keeps_facts_questions_and_support_apart():
    (story,) = parse_stories(STORY + "4 Mary moved to the garden.\n5 Where is Mary? \tgarden\t4\n", "file")
    assert story.facts == ("Mary went to the office.", "John got the milk there.", "Mary moved to the garden.")
    assert [(at, q.text, q.answer, q.support) for at, q in story.questions] == [
        (2, "Where is Mary?", "office", (0,)),
        (3, "Where is Mary?", "garden", (2,)),
    ]


def test_samples_have_the_facts_before_their_question_and_no_earlier_question():
    stories = parse_stories(STORY + "4 Mary moved to the garden.\n5 Where is Mary? \tgarden\t4\n" + STORY, "file")
    got = list(samples("qa1", stories))
    assert [len(sample.facts) for sample in got] == [2, 3, 2]
    assert [sample.facts[sample.support[0]] for sample in got] == [
        "Mary went to the office.",
        "Mary moved to the garden.",
        "Mary went to the office.",
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Mary went to the office.", "expected 'N text'"),
        ("7 Mary went to the office.", "expected line number 4 or 1, found 7"),
        ("4 Where is Mary? \toffice", "3 fields .* found 2"),
        ("4 Where is Mary? \t \t1", "3 fields"),
        ("4 Where is Mary? \toffice\t3", "support '3' must name earlier fact lines"),
        ("4 Where is Mary? \toffice\tx", "support 'x'"),
        ("", "expected 'N text'"),
        ("4 Where is Mary? office 1", "a fact ends with a full stop, and a question has two tabs"),
        ("4 Where is Mary \toffice\t1", "a question ends with a question mark, found 'Where is Mary'"),
        ("4 Where is Mary? \toffice\t ", "3 fields"),
    ],
)
def test_corrupt_line_is_named_by_file_and_number(tmp_path, line, reason):
    folder = tmp_path / "en"
    folder.mkdir()
    (folder / "qa1_x_train.txt").write_text(STORY + line + "\n" + STORY)
    with pytest.raises(ValueError, match=rf"en/qa1_x_train\.txt:4: .*{reason}.* Restore this line, or"):
        read_stories(tmp_path, "qa1", "train")


def test_bytes_that_are_no_text_are_named_by_file_and_number(tmp_path):
    (tmp_path / "qa1_train.txt").write_bytes(STORY.encode() + b"4 Mary went to the caf\xe9.\n")
    with pytest.raises(ValueError, match=r"qa1_train\.txt:4: expected UTF-8 text, found byte 0xe9"):
        read_stories(tmp_path, "qa1", "train")


def test_damaged_archive_is_one_sentence(tmp_path):
    path = tmp_path / "babi.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("en/qa1_x_train.txt", STORY * 100)
    whole = path.read_bytes()
    for damaged in (b"no zip", whole[: len(whole) // 2], whole[:60] + bytes(20) + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"babi\.zip is not a zip archive or is damaged .*give the folder or zip"):
            read_stories(path, "qa1", "train")


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"No file for task 'qa1', split 'test' .*en-10k/qa1_"):
        read_stories(tmp_path, "qa1", "test")
    with pytest.raises(FileNotFoundError, match=r"No bAbI data at .*nowhere"):
        read_stories(tmp_path / "nowhere", "qa1", "test")
    (tmp_path / "qa1_test.txt").write_text("")
    with pytest.raises(ValueError, match=r"qa1_test\.txt: .* no lines"):
        read_stories(tmp_path, "qa1", "test")


def test_larger_folder_is_preferred_and_other_languages_are_not_read(tmp_path):
    for folder, place in (("hn", "mela"), ("en", "office"), ("en-10k", "garden")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "qa1_x_train.txt").write_text(f"1 Mary went to the {place}.\n")
    assert read_stories(tmp_path, "qa1", "train")[0].facts == ("Mary went to the garden.",)
    (tmp_path / "en-10k" / "qa1_x_train.txt").unlink()
    assert read_stories(tmp_path, "qa1", "train")[0].facts == ("Mary went to the office.",)
    (tmp_path / "en" / "qa1_x_train.txt").unlink()
    with pytest.raises(ValueError, match="No file for task 'qa1'"):
        read_stories(tmp_path, "qa1", "train")


def test_task_name_is_matched_whole(tmp_path):
    (tmp_path / "qa10_x_train.txt").write_text(STORY)
    with pytest.raises(ValueError, match="No file for task 'qa1'"):
        read_stories(tmp_path, "qa1", "train")


def test_zip_and_folder_give_the_same(tmp_path, babi):
    with zipfile.ZipFile(babi) as archive:
        name = next(n for n in archive.namelist() if "/en-10k/qa1_" in n and n.endswith("test.txt"))
        archive.extract(name, tmp_path)
    assert read_stories(tmp_path, "qa1", "test") == read_stories(babi, "qa1", "test")


@pytest.mark.parametrize("number", range(1, 21))
def test_all_real_test_files_have_a_thousand_questions(babi, number):
    stories = read_stories(babi, f"qa{number}", "test")
    real = list(samples(f"qa{number}", stories))
    assert len(real) == 1000
    assert all(0 <= index < len(sample.facts) for sample in real for index in sample.support)


def test_facts_per_sample_are_those_published_for_the_test_files(babi):
    def facts(task):
        counts = [len(sample.facts) for sample in samples(task, read_stories(babi, task, "test"))]
        return min(counts), max(counts), sum(counts) / len(counts)

    assert facts("qa1") == (2, 10, 6)
    assert facts("qa2") == (2, 88, pytest.approx(15.4, abs=0.05))
    assert facts("qa3") == (4, 228, pytest.approx(51, abs=0.5))
