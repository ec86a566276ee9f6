"""The models in `models/`: small, with a card, loaded by the usual classes, and as good as their cards say."""

import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

import lm2
import lm2_command as cli
from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from lm2.data.babi import samples
from lm2.data.background import GeneratedSentences
from lm2.data.people import Stories
from lm2.data.pool import TokenPool
from lm2.data.rows import evaluation_samples
from lm2.demo.evaluation import answer
from lm2.evaluation import babilong_run
from lm2.evaluation.config import BabilongConfig

MODELS = Path(__file__).parents[1] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
MOST_BYTES = 20_000_000
KINDS = {"lm2": lm2.LM2ForCausalLM, "rmt": RMTForCausalLM, "armt": ARMTForCausalLM, "plain": Qwen3ForCausalLM}
"""What a model's name begins with, and its class."""
HEADINGS = ("## Use", "## Data", "## Recipe", "## Numbers", "## Limits")


def test_there_are_models():
    compared = {f"{kind}-reproduce" for kind in KINDS}
    assert {"lm2-babilong", "lm2-books", "lm2-tiny-qa1", *compared} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_small_and_has_a_card(name):
    files = list((MODELS / name).rglob("*"))
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pkl")]
    card = (MODELS / name / "README.md").read_text(encoding="utf-8")
    assert all(heading in card for heading in HEADINGS)
    assert "license: apache-2.0" in card


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_loaded_by_the_usual_classes(name):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, local_files_only=True)
    assert isinstance(model, KINDS[name.partition("-")[0]])
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name, local_files_only=True)
    assert len(tokenizer) <= model.get_input_embeddings().num_embeddings


def test_texts_of_different_lengths_are_answered_side_by_side():
    folder = MODELS / "lm2-books"
    model, tokenizer = lm2.LM2ForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    long = "Konrad lives in Vienna. Alma keeps a goat. Question: Which animal does Alma have? Answer:"
    short = "Konrad lives in Vienna. Question: Where does Konrad live? Answer:"
    batch = tokenizer([long, short], padding=True, return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=1)[:, -1:]
    assert tokenizer.batch_decode(ids) == [" goat", " Vienna"]


def test_the_qa1_model_remembers_through_64_segments():
    folder = MODELS / "lm2-tiny-qa1"
    model = lm2.LM2ForCausalLM.from_pretrained(folder).eval()
    tokenizer, T = AutoTokenizer.from_pretrained(folder), model.config.segment_length
    pool = TokenPool(GeneratedSentences(), tokenizer, seed=977, n_tokens=50_000)
    found = evaluation_samples("qa1", 40, 64 * T, 978, tokenizer, pool, "earlier", T)
    ids = torch.from_numpy(np.stack([sample.ids for sample in found]))
    right = torch.tensor([sample.answer_id for sample in found])
    assert (answer(model, ids, T) == right).float().mean() >= 0.9
    alone = answer(model, ids[:, -T:], T)  # the last segment alone: the fact is not in it
    assert (alone == right).float().mean() <= 0.5


def test_the_model_of_babilong_answers_its_questions(tmp_path):
    """In generated sentences, which are strange to it: its card has the numbers of both."""
    babilong_run.run(
        BabilongConfig(
            (f"it={MODELS / 'lm2-babilong'}",),
            out=tmp_path,
            tasks=("qa1", "qa3"),
            lengths=("2k",),
            samples=(10,),
            controls=("reset",),
            max_new_tokens=4,
        )
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    found = {(cell["task"], cell["condition"]): cell["accuracy"] for cell in report["cells"]}
    for task in ("qa1", "qa3"):
        assert found[task, "carried"] >= 0.9
        assert found[task, "reset"] <= 0.5


def test_the_model_of_books_remembers_what_was_told_of_people():
    """In generated sentences, which are strange to it: its card has the numbers of both."""
    folder = MODELS / "lm2-books"
    model = lm2.LM2ForCausalLM.from_pretrained(folder).eval()
    tokenizer, T = AutoTokenizer.from_pretrained(folder), model.config.segment_length
    pool = TokenPool(GeneratedSentences(), tokenizer, seed=977, n_tokens=50_000)
    stories = Stories(seed=31)
    asked = [list(samples("facts", [stories[i]]))[-1] for i in range(200)]
    found = evaluation_samples("facts", 40, 4 * T, 978, tokenizer, pool, "earlier", T, asked)
    ids = torch.from_numpy(np.stack([sample.ids for sample in found]))
    right = torch.tensor([sample.answer_id for sample in found])
    assert (answer(model, ids, T) == right).float().mean() >= 0.9
    assert (answer(model, ids[:, -T:], T) == right).float().mean() <= 0.3


def test_the_book_of_the_readme_is_read_once_and_asked_twice(monkeypatch, capsys, tmp_path):
    root = MODELS.parent
    block, printed = re.findall(
        r"```bash\n(printf .*?)```\n\n```\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )[0]
    (tmp_path / "models").symlink_to(MODELS)
    (tmp_path / "LICENSE").symlink_to(root / "LICENSE")
    monkeypatch.chdir(tmp_path)
    make, *commands = block.splitlines()
    subprocess.run(["bash", "-c", make], check=True)
    for command in commands:
        words = shlex.split(command, comments=True)
        if "<" in words:
            monkeypatch.setattr("sys.stdin", io.StringIO(Path(words.pop()).read_text(encoding="utf-8")))
            words.pop()
        assert cli.main(words[1:]) == 0
    assert capsys.readouterr().out.split() == printed.split()


def test_the_example_of_the_readme_prints_what_stands_below_it(monkeypatch, capsys):
    monkeypatch.chdir(MODELS.parent)
    text = (MODELS.parent / "README.md").read_text(encoding="utf-8")
    example, printed = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed
