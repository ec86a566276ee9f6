"""Preparing a token store: every kind of source, the same bytes after a kill, and errors that name their cause."""

import errno
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm2.data import prepare as preparing
from lm2.data import sources as reading
from lm2.data.encoding import DocumentEncoder, fingerprint, load_tokenizer
from lm2.data.prepare import prepare
from lm2.data.sources import FileSource
from lm2.data.store import Store
from tests.data.texts import generated

TEXTS = [" ".join(generated(1 + n % 7, seed=n)) for n in range(60)]


def write_lines(path: Path, texts=TEXTS, column="text") -> Path:
    lines = "".join(json.dumps({"id": n, column: text}) + "\n" for n, text in enumerate(texts))
    data = lines.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}


def whole(tokenizer, text: str) -> list[int]:
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def as_jsonl(folder):
    return write_lines(folder / "x.jsonl")


def as_gzip(folder):
    return write_lines(folder / "x.jsonl.gz")


def as_folder(folder):
    (folder / "b" / "deep").mkdir(parents=True)
    write_lines(folder / "b" / "deep" / "1.jsonl", TEXTS[:25])
    write_lines(folder / "b" / "z.jsonl.gz", TEXTS[25:])
    (folder / "b" / "notes.md").write_text("not read")
    return folder / "b"


def as_text(folder):
    (folder / "t").mkdir()
    for n, text in enumerate(TEXTS):
        (folder / "t" / f"{n:03d}.txt").write_text(text, encoding="utf-8")
    return folder / "t"


def as_parquet(folder):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"id": list(range(60)), "text": TEXTS}), folder / "x.parquet", row_group_size=17)
    return folder / "x.parquet"


@pytest.mark.parametrize("write", [as_jsonl, as_gzip, as_folder, as_text, as_parquet])
def test_every_kind_of_file_becomes_the_same_documents(tmp_path, tokenizer, write):
    store = prepare([FileSource("x", write(tmp_path))], tokenizer, tmp_path / "out", processes=1)
    assert [ids.tolist() for ids in store.documents("x")] == [whole(tokenizer, text) for text in TEXTS]
    store.check_tokenizer(tokenizer)
    assert len(list(store.verify())) == 1


def test_text_that_spells_a_special_token_is_text(tmp_path, tokenizer):
    path = write_lines(tmp_path / "x.jsonl", ["a <eos> b <pad>"])
    (ids,) = prepare([FileSource("x", path)], tokenizer, tmp_path / "out", processes=1).documents("x")
    assert tokenizer.pad_token_id not in ids
    assert ids.tolist().count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids[1:-1]) == "a <eos> b <pad>"


def test_empty_documents_are_counted_and_left_out(tmp_path, tokenizer):
    path = write_lines(tmp_path / "x.jsonl", ["", "one", None, "a two"])
    store = prepare([FileSource("x", path)], tokenizer, tmp_path / "out", processes=1)
    assert store.n_documents == 2
    assert store.facts["sources"][0]["left_out"] == 2
    assert all(len(ids) >= 2 for ids in store.documents("x"))


def test_a_document_of_one_token_is_left_out_where_no_token_follows_it(tokenizer):
    bare = DocumentEncoder(tokenizer.backend_tokenizer.to_str(), (), (), len(tokenizer), "", "")
    assert bare(["a"]) == [None]
    assert bare(["a b"])[0].tolist() == tokenizer("a b", add_special_tokens=False)["input_ids"]


def test_shards_are_closed_by_size_and_hold_the_same_tokens(tmp_path, tokenizer):
    source = FileSource("x", write_lines(tmp_path / "x.jsonl"))
    one = prepare([source], tokenizer, tmp_path / "one", processes=1)
    many = prepare([source], tokenizer, tmp_path / "many", processes=1, shard_tokens=100)
    assert len(many.shards["x"]) > 5
    assert all(shard.tokens >= 100 for shard in many.shards["x"][:-1])
    tokens = [np.concatenate(list(store.documents("x"))) for store in (one, many)]
    assert (tokens[0] == tokens[1]).all()


class Killed(BaseException):
    """Stands for a process that ends at once."""


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, tokenizer, monkeypatch, at):
    monkeypatch.setattr(reading, "PART_BYTES", 2000)
    monkeypatch.setattr(preparing, "BATCH_DOCUMENTS", 4)
    source, write = FileSource("x", as_text(tmp_path)), preparing.write_shard
    expected = prepare([source], tokenizer, tmp_path / "never", processes=1, shard_tokens=300)
    assert len({shard.name[:9] for shard in expected.shards["x"]}) > 2
    written = []

    def stopping(stem, documents, dtype, limit):
        if len(written) == at:
            raise Killed
        written.append(stem.name)
        return write(stem, documents, dtype, limit)

    monkeypatch.setattr(preparing, "write_shard", stopping)
    with pytest.raises(Killed):
        prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=300)
    with pytest.raises(ValueError, match="holds an unfinished token store"):
        Store(tmp_path / "out")
    first, at = list(written), -1
    again = prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=300)
    assert files_of(again.folder) == files_of(expected.folder)
    assert not set(first) & set(written[len(first) :])
    assert again.fingerprint == expected.fingerprint
    written.clear()
    assert prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=300).n_tokens == again.n_tokens
    assert written == []


@pytest.mark.dist
def test_several_processes_write_the_same_bytes_as_one_and_hand_back_an_error(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(reading, "PART_BYTES", 1)
    (tmp_path / "in").mkdir()
    for n in range(4):
        write_lines(tmp_path / "in" / f"{n}.jsonl", TEXTS[15 * n : 15 * n + 15])
    source = FileSource("x", tmp_path / "in")
    one = prepare([source], tokenizer, tmp_path / "one", processes=1, shard_tokens=200)
    two = prepare([source], tokenizer, tmp_path / "two", processes=2, shard_tokens=200)
    assert files_of(two.folder) == files_of(one.folder)
    write_lines(tmp_path / "in" / "3.jsonl", column="content")
    with pytest.raises(ValueError, match=r"3\.jsonl:1 has no column 'text'"):
        prepare([source], tokenizer, tmp_path / "three", processes=2)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(900)  # seven starts of Python with torch, on a machine that may be busy
def test_a_command_killed_while_several_processes_work_goes_on_to_the_same_bytes(tmp_path, tokenizer):
    """kill -9 of all its processes; the short twin is the test of a run that was stopped."""
    sources = [FileSource(f"s{n}", write_lines(tmp_path / f"{n}.jsonl", TEXTS * 60)) for n in range(6)]
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    words = ["data", "prepare", *(f"{source.name}={source.path}" for source in sources)]
    words += ["--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "out"), "--shard-tokens", "20000"]
    command = [sys.executable, "-m", "lm2_command", *words, "--processes", "2"]
    killed = subprocess.Popen(command, start_new_session=True)
    shards, until = tmp_path / "out" / "shards", time.monotonic() + 200
    while not list(shards.glob("*.json")) and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "store.json").exists()
    assert subprocess.run(command, check=False).returncode == 0
    expected = prepare(sources, tokenizer, tmp_path / "never", processes=1, shard_tokens=20000)
    for part in shards.glob(".*.part"):  # of the killed processes; nothing reads them
        part.unlink()
    assert files_of(tmp_path / "out") == files_of(expected.folder)


def test_a_full_disk_keeps_the_finished_shards_and_the_next_run_goes_on(tmp_path, tokenizer, monkeypatch):
    source, write = FileSource("x", write_lines(tmp_path / "x.jsonl")), preparing.write_shard
    calls = []

    def full(stem, documents, dtype, limit):
        calls.append(stem)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(stem))
        return write(stem, documents, dtype, limit)

    monkeypatch.setattr(preparing, "write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=100)
    assert len(list((tmp_path / "out" / "shards").glob("*.json"))) == 2
    again = prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=100)
    assert calls[3].name == calls[2].name
    assert again.n_documents == len(TEXTS)


def test_a_limit_takes_the_first_documents_of_each_part(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(reading, "PART_BYTES", 1)
    for n in range(3):
        write_lines(tmp_path / f"{n}.jsonl", TEXTS[20 * n : 20 * n + 20])
    store = prepare([FileSource("x", tmp_path)], tokenizer, tmp_path / "out", processes=1, limit=7)
    expected = [whole(tokenizer, TEXTS[i]) for i in (0, 1, 2, 20, 21, 22, 40, 41, 42)]
    assert [ids.tolist() for ids in store.documents("x")] == expected


def bad_column(folder):
    return [FileSource("x", write_lines(folder / "x.jsonl", column="content"))]


def bad_parquet_column(folder):
    return [FileSource("x", as_parquet(folder), column="txt")]


def number_column(folder):
    return [FileSource("x", write_lines(folder / "x.jsonl"), column="id")]


def damaged_line(folder):
    path = write_lines(folder / "x.jsonl")
    path.write_text(path.read_text() + '{"text": "half\n')
    return [FileSource("x", path)]


def cut_gzip(folder):
    path = write_lines(folder / "x.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-30])
    return [FileSource("x", path)]


def cut_parquet(folder):
    path = as_parquet(folder)
    path.write_bytes(path.read_bytes()[:-30])
    return [FileSource("x", path)]


def no_documents(folder):
    return [FileSource("x", write_lines(folder / "x.jsonl", ["", ""]))]


def no_file(folder):
    return [FileSource("x", folder / "nowhere")]


def no_known_file(folder):
    (folder / "e").mkdir()
    (folder / "e" / "a.csv").write_text("a")
    return [FileSource("x", folder / "e")]


def unknown_kind(folder):
    (folder / "a.csv").write_text("a")
    return [FileSource("x", folder / "a.csv")]


def same_name(folder):
    return [FileSource("x", write_lines(folder / "x.jsonl"))] * 2


def one_weight(folder):
    path = write_lines(folder / "x.jsonl")
    return [FileSource("x", path, weight=2.0), FileSource("y", path)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_column, r"x\.jsonl:1 has no column 'text', it has \['content', 'id'\]: choose one of them with --column"),
        (bad_parquet_column, r"x\.parquet has no column 'txt', it has \['id', 'text'\]"),
        (number_column, r"x\.jsonl:1: column 'id' holds int, not text"),
        (damaged_line, r"x\.jsonl:61: expected a JSON object, found"),
        (cut_gzip, r"x\.jsonl\.gz is damaged or cut short"),
        (cut_parquet, r"x\.parquet is damaged or cut short"),
        (no_documents, r"source x has 0 documents of two tokens or more \(2 are empty or shorter\)"),
        (no_file, r"there is no file or folder .*nowhere"),
        (no_known_file, r"holds 0 files ending in \.jsonl, "),
        (unknown_kind, r"a\.csv is of no known kind: files must end in \.jsonl, "),
        (same_name, r"2 sources are called 'x': name them apart with NAME=PLACE"),
        (one_weight, r"1 of 2 sources have a weight \(x\): give every source one, or none"),
        (lambda folder: [], r"there are 0 sources"),
    ],
)
def test_sources_that_cannot_be_read_are_named(tmp_path, tokenizer, make, message):
    with pytest.raises(ValueError, match=message):
        prepare(make(tmp_path), tokenizer, tmp_path / "out", processes=1)


def test_going_on_with_other_settings_files_or_tokenizer_is_refused(tmp_path, tokenizer):
    path = write_lines(tmp_path / "x.jsonl")
    source = FileSource("x", path)
    prepare([source], tokenizer, tmp_path / "out", processes=1)
    with pytest.raises(ValueError, match=r"shard_tokens: 134217728 then, 7 now"):
        prepare([source], tokenizer, tmp_path / "out", processes=1, shard_tokens=7)
    with pytest.raises(ValueError, match=r"limit: null then, 3 now"):
        prepare([source], tokenizer, tmp_path / "out", processes=1, limit=3)
    message = r"x \(1 parts with digest (\w{8}), weight None\) then, y \(1 parts with digest \1, weight None\) now"
    with pytest.raises(ValueError, match=message):
        prepare([FileSource("y", path)], tokenizer, tmp_path / "out", processes=1)
    tokenizer_json = json.loads((tmp_path / "out" / "plan.json").read_text())
    tokenizer_json["tokenizer"]["fingerprint"] = "0" * 64
    (tmp_path / "out" / "plan.json").write_text(json.dumps(tokenizer_json))
    with pytest.raises(ValueError, match=rf"tokenizer: 0{{12}} then, {fingerprint(tokenizer)[:12]} now"):
        prepare([source], tokenizer, tmp_path / "out", processes=1)


def test_files_are_known_by_what_they_hold(tmp_path, tokenizer, monkeypatch):
    """One that kept its size is another, and one that was copied is the same."""
    monkeypatch.setattr(preparing, "BATCH_DOCUMENTS", 4)
    path, out, write = write_lines(tmp_path / "x.jsonl"), tmp_path / "out", preparing.write_shard

    def stopping(stem, *parts):
        if stem.name.endswith("0002"):
            raise Killed
        return write(stem, *parts)

    monkeypatch.setattr(preparing, "write_shard", stopping)
    with pytest.raises(Killed):
        prepare([FileSource("x", path)], tokenizer, out, processes=1, shard_tokens=300)
    monkeypatch.setattr(preparing, "write_shard", write)
    before, kept = path.read_bytes(), files_of(out)
    write_lines(path, TEXTS[::-1])
    assert path.stat().st_size == len(before)
    with pytest.raises(
        ValueError, match=r"x \(1 parts with digest (\w{8}),.* then, x \(1 parts with digest (?!\1)\w{8},"
    ):
        prepare([FileSource("x", path)], tokenizer, out, processes=1, shard_tokens=300)
    assert files_of(out) == kept
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "x.jsonl").write_bytes(before)
    os.utime(tmp_path / "copy" / "x.jsonl", (0, 0))
    store = prepare([FileSource("x", tmp_path / "copy" / "x.jsonl")], tokenizer, out, processes=1, shard_tokens=300)
    assert [ids.tolist() for ids in store.documents("x")] == [whole(tokenizer, text) for text in TEXTS]


def test_the_reading_before_the_tokenizing_says_what_it_does(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.setattr("lm2.progress.LINE_EVERY", 0.0)
    prepare([FileSource("x", as_folder(tmp_path))], tokenizer, tmp_path / "out", processes=1)
    found = re.findall(r"reading the files of x to know them again: (\d+) %", capsys.readouterr().err)
    assert len(found) == 2
    assert 0 < int(found[0]) < int(found[1]) == 100


def test_a_folder_with_other_things_is_left_alone(tmp_path, tokenizer):
    source = FileSource("x", write_lines(tmp_path / "x.jsonl"))
    with pytest.raises(ValueError, match="is not empty and holds no token store"):
        prepare([source], tokenizer, tmp_path, processes=1)
    with pytest.raises(ValueError, match="is a file: choose a folder"):
        prepare([source], tokenizer, tmp_path / "x.jsonl", processes=1)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        prepare([source], tokenizer, tmp_path / "out", limit=0)


def test_a_tokenizer_keeps_its_fingerprint_when_it_is_saved(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "t")
    assert fingerprint(load_tokenizer(str(tmp_path / "t"))) == fingerprint(tokenizer)
    changed = load_tokenizer(str(tmp_path / "t"))
    changed.eos_token = "<pad>"
    assert fingerprint(changed) != fingerprint(tokenizer)
    with pytest.raises(ValueError, match=r"no tokenizer could be read from '.*nowhere'"):
        load_tokenizer(str(tmp_path / "nowhere"))
