"""Text made and taken apart for the tests."""

import re
from itertools import islice

import numpy as np

from lm2.data.background import GeneratedSentences
from lm2.data.solver import solve

FACT = (
    r"(?:Mary|John|Daniel|Sandra) (?:(?:went|went back|moved|journeyed|travelled) to the \w+"
    r"|(?:got|grabbed|took|picked up|left|dropped|discarded|put down) the (?:football|apple|milk)(?: there)?)\."
)
QUESTION = r"Where (?:is|was) (?:the )?\w+(?: before the \w+)?\?"
EVENT = re.compile(rf"({FACT})|({QUESTION}) (\w+)\.")


def generated(n: int, seed: int = 0) -> list[str]:
    return list(islice(GeneratedSentences().sentences(np.random.default_rng(seed)), n))


def answers_of(task: str, text: str) -> tuple[list[str], list[str]]:
    """(answers written in a text, answers the solver gives there to the same questions)."""
    facts, written, right = [], [], []
    for fact, question, answer in EVENT.findall(text):
        if fact:
            facts.append(fact)
        else:
            written.append(answer)
            right.append(solve(task, facts, question))
    return written, right
