"""The questions: `lm2 eval babilong`'s engine over the cells of a reproduction, the same samples for every model."""

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

from lm2.evaluation.babilong import SampleSource
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.controls import CONTROLS
from lm2.evaluation.engine import Asked, answers_folder, evaluate
from lm2.evaluation.models import parse_spec
from lm2.evaluation.tokens import n_tokens
from lm2.reproduce import material
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import MEMORIES, NAMES, Cells, Sizes
from lm2.training.folder import MODEL_FOLDER

Rule = Literal["official", "word"]
SHORTEST = 300
"""What a text without background costs, in tokens."""
READS = {"exchanged": 0, "question": 0}
"""How often a condition reads the text; 1 if not named."""


def specs_of(config: ReproduceConfig, sizes: Sizes, name: str) -> tuple[str, ...]:
    """How a contender is asked; the plain model in four ways."""
    folder = config.out / name / MODEL_FOLDER
    if name in MEMORIES:
        return (f"{NAMES[name]}={folder}",)
    T = sizes.recipe.segment_length
    return (
        f"{window_name(sizes)}={folder}@last:{T}",
        f"plain last {T * sizes.attention_segments}={folder}@last:{T * sizes.attention_segments}",
        f"plain full={folder}@full",
        f"plain RAG={folder}@rag:{sizes.passages}",
    )


def window_name(sizes: Sizes) -> str:
    """What the plain model that sees no more than a segment is called."""
    return f"plain last {sizes.recipe.segment_length}"


def folder_of(config: ReproduceConfig) -> Path:
    """Where the answers are."""
    return config.out / "evaluation"


def cells_config(
    config: ReproduceConfig, sizes: Sizes, cells: Cells, specs: Sequence[str], rule: Rule = "official"
) -> BabilongConfig:
    """The options of `lm2 eval babilong` that ask these cells; the controls with those that have them."""
    return BabilongConfig(
        models=tuple(specs),
        out=folder_of(config),
        tasks=cells.tasks,
        lengths=cells.lengths,
        samples=tuple(cells.samples.values()),
        sample_set="1000",
        babi=config.babi,
        seed=config.seed,
        rule=rule,
        controls=CONTROLS if cells is sizes.controls else (),
        passage_words=sizes.passage_words,
        max_new_tokens=sizes.max_new_tokens,
        device="cpu",
    )


def cells_of(sizes: Sizes, name: str) -> tuple[Cells, ...]:
    """What a contender is asked: memories with the controls, too; far ones and controls where a task has them."""
    asked = (sizes.main, sizes.far, sizes.controls) if name in MEMORIES else (sizes.main, sizes.far)
    return tuple(cells for cells in asked if cells.tasks)


def ask(config: ReproduceConfig, sizes: Sizes, name: str) -> None:
    """Ask a contender what it has not been asked yet."""
    source = material.samples(config)
    for cells in cells_of(sizes, name):
        evaluate(cells_config(config, sizes, cells, specs_of(config, sizes, name)), source)


def answers(
    config: ReproduceConfig, sizes: Sizes, cells: Cells, names: Sequence[str], source: SampleSource
) -> list[Asked]:
    """The answers of several contenders to these cells, all of which they have given; none to no cells."""
    if not cells.tasks:
        return []
    specs = [spec for name in names for spec in specs_of(config, sizes, name)]
    with redirect_stdout(StringIO()):  # nothing is asked, so nothing is told
        return evaluate(cells_config(config, sizes, cells, specs), source)


def keys_of(sizes: Sizes, name: str) -> dict[tuple[str, str, str], int]:
    """What a contender is asked in one of its ways: samples by task, length and condition."""
    found: dict[tuple[str, str, str], int] = {}
    main = "carried" if name in MEMORIES else "plain"
    for cells in cells_of(sizes, name):
        own = (main, *(CONTROLS if cells is sizes.controls else ()), "question")
        for task in cells.tasks:
            for length, n in cells.samples.items():
                for condition in own:
                    found[task, length, condition] = max(n, found.get((task, length, condition), 0))
    return found


def share(config: ReproduceConfig, sizes: Sizes, name: str) -> float:
    """The share of a contender's questions that is answered, by the length of the texts; 1 when all are."""
    asked, specs = keys_of(sizes, name), specs_of(config, sizes, name)
    given = [key for spec in specs for key in _given(answers_folder(folder_of(config), parse_spec(spec).name))]
    done = sum(_cost(length, condition) for task, length, condition in given if (task, length, condition) in asked)
    return done / (len(specs) * sum(n * _cost(length, condition) for (_, length, condition), n in asked.items()))


def _given(folder: Path) -> list[tuple[str, str, str]]:
    """Task, length and condition of each answer in a folder: of a line that is being written none, of an answer that
    two commands wrote at a time one."""
    keys = set[tuple[str, str, int, str]]()
    for path in folder.glob("records.*.jsonl"):
        _, *lines = path.read_text(encoding="utf-8").split("\n")
        keys |= {tuple(json.loads(line)["key"]) for line in lines[:-1]}
    return [(task, length, condition) for task, length, _, condition in keys]


def _cost(length: str, condition: str) -> int:
    return READS.get(condition, 1) * max(SHORTEST, n_tokens(length)) + 1
