import json
import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.evaluation.babilong import PIECE_CHARS, LocalBabilong
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.sample_files import FileBabilong, json_objects, read_samples, split, write_samples


@dataclass(frozen=True)
class Words:
    """A context of any text."""

    words: str

    def pieces(self):
        return split(self.words)


@pytest.fixture(scope="module")
def samples(background):
    source = LocalBabilong(None, background, size=100)
    return [*source.samples("qa1", "1k")][:4] + [*source.samples("qa2", "8k")][:3]


@pytest.fixture
def file(samples, tmp_path):
    write_samples(tmp_path / "samples.jsonl", samples)
    return tmp_path / "samples.jsonl"


def test_what_is_read_is_what_was_written(samples, file):
    again = list(read_samples(file))
    assert again == samples
    assert [sample.context() for sample in again] == [sample.context() for sample in samples]


def test_the_same_seed_gives_the_same_bytes(background, tmp_path):
    for name in ("a", "b"):
        written = write_samples(tmp_path / name, LocalBabilong(None, background, seed=3).samples("qa3", "2k"))
        assert written == 100
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_lines_have_the_fields_of_the_released_sets(samples, file):
    first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert first["input"] == samples[0].context()
    assert (first["question"], first["target"]) == (samples[0].question, samples[0].target)


def test_a_cell_is_found_and_a_missing_one_is_named(samples, file):
    source = FileBabilong(file)
    assert list(source.samples("qa2", "8k")) == samples[4:]
    with pytest.raises(ValueError, match="no sample of qa3 at 1k"):
        next(source.samples("qa3", "1k"))


def test_the_command_asks_the_samples_of_a_file(samples, file):
    config = BabilongConfig(("model",), released=str(file), tasks=("qa2",), lengths=("8k",), samples=(2,))
    assert list(config.cells(config.source())) == [(("qa2", "8k"), samples[4:6])]


def test_nothing_stays_of_a_file_that_was_not_finished(samples, tmp_path):
    def failing():
        yield samples[0]
        raise ValueError("stop")

    (tmp_path / "samples.jsonl").write_text("old")
    with pytest.raises(ValueError, match="stop"):
        write_samples(tmp_path / "samples.jsonl", failing())
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]
    assert (tmp_path / "samples.jsonl").read_text() == "old"


def test_a_cut_file_is_named_with_the_sample(file):
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: len(text) - 200], encoding="utf-8")
    with pytest.raises(ValueError, match=r"samples\.jsonl, sample 7: expected a whole JSON object"):
        list(read_samples(file))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"task": "qa1"}', "sample 1: a sample has task.*missing or wrong"),
        (b"[1, 2]", "sample 1: expected a whole JSON object, found '1, 2"),
        (b'{"a": 1} what', "sample 2: expected a whole JSON object, found 'what'"),
        (b'{"a": "\xff"}', "sample 1: expected a whole JSON object"),
    ],
)
def test_other_content_is_refused(tmp_path, content, match):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        list(read_samples(tmp_path / "f") if b"task" in content else json_objects(tmp_path / "f"))


objects = st.lists(st.dictionaries(st.text(max_size=3), st.text(), max_size=3), max_size=4)


@settings(max_examples=40, deadline=None)
@given(objects=objects, indent=st.sampled_from([None, 1]), pad=st.integers(0, 200_000), ascii=st.booleans())
def test_arrays_and_lines_of_any_objects_are_read(tmp_path_factory, objects, indent, pad, ascii):
    objects = [*objects, {"long": "x" * pad}]
    path = tmp_path_factory.mktemp("json") / "f"
    for between in ("\n", "\r\n"):
        whole = json.dumps(objects, indent=indent, ensure_ascii=ascii)
        lines = "\n".join(json.dumps(fields, ensure_ascii=ascii) for fields in objects)
        for text in (whole, lines):
            path.write_bytes(content := text.replace("\n", between).encode())
            found = list(json_objects(path))
            assert [stored.fields for stored in found] == objects
            places = [stored.content for stored in found]
            assert [json.loads(content[place.start : place.end]) for place in places] == objects


def test_contexts_stay_in_the_file(samples, tmp_path):
    one = samples[0]
    long = replace(one, content=Words("ä word " * 150_000))
    write_samples(tmp_path / "f", (replace(long, index=index) for index in range(8)))
    tracemalloc.start()
    found = list(read_samples(tmp_path / "f"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000 < (tmp_path / "f").stat().st_size // 8
    assert found[5].context() == long.context() == found[2].context()


def test_a_file_that_has_changed_since_is_told(samples, file):
    found = list(read_samples(file))
    file.write_bytes(file.read_bytes()[7:])
    with pytest.raises(ValueError, match="is not what it was when it was opened: run again"):
        found[1].context()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_stored_text_is_cut_before_single_spaces(seed):
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(["a", " ", "\n"], p=[0.8, 0.15, 0.05], size=3 * PIECE_CHARS))
    pieces = list(split(text))
    assert "".join(pieces) == text
    assert all(piece[0] == " " and not piece[1].isspace() for piece in pieces[1:])
    assert all(len(piece) < PIECE_CHARS + 200 for piece in pieces)
