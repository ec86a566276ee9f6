"""Contenders trained with longer rows: only the lengths at the end differ, and what is wrong is told at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import FULL, SMOKE
from lm2.reproduce.work import Work
from lm2.settings import check_settings
from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def long_rows():
    return script("long_rows")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A reproduction that has its backbone."""
    config = ReproduceConfig(out=tmp_path_factory.mktemp("reproduce"), smoke=True)
    check_settings(config.out, {"options": config.to_json()}, "reproduction")
    work = Work(config, SMOKE)
    work.prepare()
    work.train_base()
    return config.out


def test_only_the_lengths_of_the_rows_at_the_end_differ(long_rows, run):
    options = long_rows.Options(run=run)
    before, longer = options.sizes.recipe, options.longer.recipe
    assert replace(longer, phases=before.phases) == before
    assert longer.phases[:-2] == before.phases[:-1]
    assert replace(longer.phases[-2], share=before.phases[-1].share) == before.phases[-1]
    assert longer.phases[-1].segments == (8, 16, 32, 64)
    assert sum(phase.share for phase in longer.phases) == sum(phase.share for phase in before.phases) == 1
    assert {phase.rows for phase in longer.phases} == {phase.rows for phase in FULL.recipe.phases}


@pytest.mark.slow
def test_a_memory_is_trained_and_asked_with_them_and_a_second_run_does_nothing_again(long_rows, run, capsys):
    options = long_rows.Options(run=run, folder=run.parent / "long", names=("lm2", "rmt"), out=run.parent / "long.json")
    long_rows.main(options)
    first = capsys.readouterr().out
    assert "| RMT | 0.00" in first
    assert "LM2 against RMT: p = " in first
    table = first[first.index("| model") :]
    assert "qa1 at 2k |" in table  # which is beyond the lengths of the claim
    head, _, *rows = (line.count("|") for line in table.splitlines()[:4])
    assert rows == [head, head]  # of each length its mean once, not that of the question alone, too
    models = {path: path.stat().st_mtime_ns for path in options.folder.rglob("*.safetensors")}
    assert models
    long_rows.main(options)
    assert capsys.readouterr().out.endswith(table)
    assert {path: path.stat().st_mtime_ns for path in options.folder.rglob("*.safetensors")} == models
    with pytest.raises(ValueError, match=r"share was 0\.25 and is 0\.3"):
        long_rows.main(replace(options, share=0.3))


def test_what_is_wrong_is_told_at_once(long_rows, run, tmp_path):
    wrong = long_rows.Options(run=run, names=("lm2", "gru"), share=0.5, segments=(8, 24))
    with pytest.raises(ValueError, match=r"(?s)lm2 gru: choose among.*--share is 0\.5.*below 0\.5.*24.*part of the 64"):
        wrong.check()
    (tmp_path / "settings.json").write_text((run / "settings.json").read_text())
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        long_rows.Options(run=tmp_path).check()
