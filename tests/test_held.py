"""A folder is one process's at a time, and nobody's when that has ended, however it did."""

import subprocess
import sys
from pathlib import Path

import pytest

from lm2.data import prepare as preparing
from lm2.data.sources import FileSource
from lm2.data.tokenizer import train_tokenizer
from lm2.demo import runner as demo_runner
from lm2.demo.config import DemoConfig
from lm2.held import held
from lm2.reproduce import runner as reproduce_runner
from lm2.reproduce.config import ReproduceConfig
from lm2.study import write_rules
from lm2.study.config import StudyConfig
from lm2.training import RunConfig, Stage, train, trainer

HOLDER = """
import pathlib, sys
from lm2.held import held
with held(pathlib.Path(sys.argv[1])):
    print("holds", flush=True)
    input()
"""


def test_a_second_process_is_refused_until_the_first_is_gone_also_by_a_kill(tmp_path):
    folder = tmp_path / "new" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(ValueError, match=f"another process works in {folder}, .*: wait for its end"), held(folder):
            raise AssertionError("two in one folder")
        with held(tmp_path / "new"):  # the folders above and below are others
            holder.kill()
            holder.wait()
    with held(folder):
        pass


def test_it_is_free_after_the_block_also_after_an_error(tmp_path):
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with held(tmp_path), held(tmp_path / "part"):
        assert (tmp_path / "part").is_dir()


def train_in(folder: Path) -> None:
    train(RunConfig(model=never, make_batch=never, stages=(Stage(steps=200),), output_dir=folder))


def never(*request):
    raise AssertionError("begun")


def demo_in(folder: Path) -> None:
    demo_runner.run(DemoConfig(out=folder, scale=0.001))


def reproduce_in(folder: Path) -> None:
    reproduce_runner.run(ReproduceConfig(out=folder, smoke=True))


def study_in(folder: Path) -> None:
    write_rules.run(StudyConfig(out=folder, table=folder / "table.md"))


def prepare_in(folder: Path) -> None:
    tokenizer = train_tokenizer(["Ada keeps a goat."], 300, ["goat"])
    (folder.parent / "text.txt").write_text("Ada keeps a goat.")
    preparing.prepare([FileSource("text", folder.parent / "text.txt")], tokenizer, folder, processes=1)


@pytest.mark.parametrize(
    ("module", "work"),
    [
        (trainer, train_in),
        (demo_runner, demo_in),
        (reproduce_runner, reproduce_in),
        (write_rules, study_in),
        (preparing, prepare_in),
    ],
)
def test_what_takes_hours_is_refused_where_another_process_is_at_it(module, work, tmp_path, monkeypatch):
    """Settings are written before a folder is held: here by a first command that ends when it would begin to work."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(module, "held", ended)
        with pytest.raises(KeyboardInterrupt):
            work(folder)
    with held(folder), pytest.raises(ValueError, match=f"another process works in {folder}"):
        work(folder)


def ended(folder: Path) -> None:
    raise KeyboardInterrupt
