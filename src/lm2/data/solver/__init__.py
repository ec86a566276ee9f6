"""Answers the questions of all 20 bAbI tasks from the text alone; written apart from the simulator, to check it.

One module for each family of tasks, each with a table from the form of a question to the function that answers it:

    places.py   where people are, surely, perhaps or not       qa1 qa6 qa9 qa10 qa11 qa12 qa13
    things.py   what people carry, took, dropped and gave      qa2 qa3 qa5 qa7 qa8
    times.py    where people were at which time of day         qa14
    kinds.py    what holds for all of a kind                   qa15 qa16
    layout.py   how places, shapes and boxes lie and fit       qa4 qa17 qa18 qa19
    motives.py  why people go where they go                    qa20

`events.py` reads the sentences about people. Rules only: nothing is learned from the questions of the files. The rules
answer every question of the original files but a few of qa5 that the files do not decide (see `things.py`).
"""

import re
from collections.abc import Sequence

from lm2.data.solver import kinds, layout, motives, places, things, times

RULES = {**places.RULES, **things.RULES, **times.RULES, **kinds.RULES, **layout.RULES, **motives.RULES}


def solve(task: str, facts: Sequence[str], question: str) -> str:
    """The answer that `facts` give to `question`, written as in the files.

    Raises:
        ValueError: unknown task, a sentence the task does not have, or facts that do not decide the question.
    """
    if task not in RULES:
        raise ValueError(f"Unknown task {task!r}: the solver knows qa1 ... qa20.")
    for form, answer in RULES[task].items():
        if match := re.fullmatch(form, question.strip()):
            found = answer(facts, *match.groups())
            if found is None:
                raise ValueError(f"The {len(facts)} facts do not decide {question!r}.")
            return found
    raise ValueError(f"Not a question of {task}: {question!r}.")
