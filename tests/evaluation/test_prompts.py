import json
from itertools import product
from pathlib import Path

import pytest

from lm2.evaluation import prompts
from lm2.evaluation.prompts import prompt_parts, whole_prompt
from lm2.evaluation.sets import TASKS


def test_the_texts_are_the_published_ones(results):
    shipped = Path(prompts.__file__).with_name("prompts.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json.loads((results / "prompts_qa1-20.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("flags", [*product([True, False], repeat=3)])
def test_parts_and_context_make_the_official_prompt(results, task, flags):
    published = json.loads((results / "prompts_qa1-20.json").read_text(encoding="utf-8"))
    names = ("instruction", "examples", "post_prompt")
    texts = {name: published["tasks"][task][name] if used else "" for name, used in zip(names, flags, strict=True)}
    official = published["template"].format(context="A {b} c.", question="Where is Mary? ", **texts).strip()
    before, after = prompt_parts(task, *flags)
    assert before + "A {b} c." + after.format(question="Where is Mary?") == official
    assert whole_prompt(task, "A {b} c.", "Where is Mary? ", *flags) == official


def test_without_parts_a_prompt_is_context_and_question():
    assert whole_prompt("qa1", "C.", "Where? ", False, False, False) == "<context>\nC.\n</context>\n\nQuestion: Where?"


def test_known_slips_are_kept():
    stray = [task for task in TASKS if prompt_parts(task)[0].count("<context>") == 2]
    assert stray == ["qa10", "qa11", "qa12", "qa13", "qa14", "qa15", "qa16", "qa20"]
    assert "a question.You need" in prompt_parts("qa2")[0]


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="Unknown task 'qa30'"):
        prompt_parts("qa30")
