"""The official BABILong prompts, word for word.

The texts are data (prompts.json, from booydar/babilong, Apache-2.0; see NOTICE), because numbers are only comparable
with exactly these words, their slips included: qa10 to qa16 and qa20 have a stray `<context>` line in their examples,
qa2's instruction lacks a space.

Base models are usually run without instruction, examples and post-prompt, chat models with all three.
"""

import json
from functools import cache
from pathlib import Path

from lm2.evaluation.sets import check_task


def prompt_parts(
    task: str, use_instruction: bool = True, use_examples: bool = True, use_post_prompt: bool = True
) -> tuple[str, str]:
    """What stands before the context, and a template of what follows it.

    The whole prompt is `before + context + after.format(question=question)` with white space at its ends stripped, as
    `whole_prompt` does; `before` has none, so it is enough to strip the question.

    Raises:
        ValueError: unknown task.
    """
    check_task(task)
    prompts = _prompts()
    used = {"instruction": use_instruction, "examples": use_examples, "post_prompt": use_post_prompt}
    before, after = prompts["template"].split("{context}")
    texts = {name: text if used[name] else "" for name, text in prompts["tasks"][task].items()}
    return before.format(**texts).lstrip(), after


def whole_prompt(
    task: str,
    context: str,
    question: str,
    use_instruction: bool = True,
    use_examples: bool = True,
    use_post_prompt: bool = True,
) -> str:
    """The official prompt of a sample that is short enough to be one string."""
    before, after = prompt_parts(task, use_instruction, use_examples, use_post_prompt)
    return (before + context + after.format(question=question)).strip()


@cache
def _prompts() -> dict:
    return json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
