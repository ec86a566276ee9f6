"""The page about `lm2 look` quotes what is so: its code runs, and its table is what the shipped model gives."""

import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm2.analysis import look
from lm2.data.background import GeneratedSentences

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "look.md").read_text(encoding="utf-8")
ROW = re.compile(r"^ *([\d.]+) % +([\d.]+) +([\d,]+) +([\d.]+)  (.*)$", re.MULTILINE)


def test_the_code_runs_and_names_the_fact(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "look.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert any("Mary went to the garden." in line for line in lines)


def test_the_table_is_what_the_shipped_model_gives():
    folder = ROOT / "models" / "lm2-tiny-qa1"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    filler = " ".join(islice(GeneratedSentences().sentences(np.random.default_rng(0)), 300))
    text = f" Mary went to the garden. John moved to the office. {filler}"
    found = look(model, tokenizer, text, [" Where is Mary?"], max_new_tokens=1)
    (one,) = found.answers
    rows = ROW.findall(PAGE)
    assert f"{found.tokens:,} tokens in segments of {found.segment_length}; " in PAGE
    assert len(rows) == len(one.tried) == 4
    for (read, written, ago, without, passage), tried in zip(rows, one.tried, strict=True):
        place = found.places[tried.place]
        assert found.tokens - place.first == int(ago.replace(",", ""))
        assert passage.endswith(f"[{place.text.strip()}]")
        assert 100 * one.read_P[tried.place] == pytest.approx(float(read), abs=0.5)
        assert place.written == pytest.approx(float(written), abs=0.02)
        assert tried.probability == pytest.approx(float(without), abs=0.02)
