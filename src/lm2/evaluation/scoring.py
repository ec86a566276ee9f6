"""When is an output right? Four rules; a number means nothing without the name of its rule.

* official   the label rule of BABILong's tables and leaderboard: of all labels of the task, found as substrings of the
             first sentence and not part of the question, only the target's. In qa7 "none" contains "one", so an output
             "none" is always wrong and a perfect model gets 53.2 %.
* word       the official rule with labels found as whole words, which repairs qa7, and finds "no" neither in "not" nor
             in "know". Of 67,890 published outputs it judges 75 differently, 45 of them in qa7.
* exact      the output is the target (how RMT and ARMT are trained and measured).
* substring  the target occurs in the output (lm-evaluation-harness). In qa7 "none" then also counts as "one": a model
             that always says "none" gets 95.6 %.

Source: booydar/babilong (label rule); labels follow bAbI's answers.
"""

import re
from collections.abc import Callable
from functools import partial

from lm2.data.babi import PLACES
from lm2.evaluation.sets import check_task

_YES_NO = ("yes", "no")
_LABELS = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13"), PLACES),
    "qa5": ("bill", "fred", "jeff", "mary", "apple", "football", "milk"),
    **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), _YES_NO),
    "qa7": ("none", "one", "two", "three"),
    "qa8": ("apple", "football", "milk", "nothing"),
    "qa10": (*_YES_NO, "maybe"),
    "qa14": ("bedroom", "cinema", "kitchen", "office", "park", "school"),
    "qa15": ("cat", "mouse", "sheep", "wolf"),
    "qa16": ("gray", "green", "white", "yellow"),
    "qa19": ("n,n", "n,e", "n,w", "s,s", "s,e", "s,w", "e,n", "e,s", "e,e", "w,n", "w,s", "w,w"),
    "qa20": ("bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired"),
}
_STOPS = (".", "<context>", "<example>")
"""The answer ends before the first of each."""

Find = Callable[[str, str], bool]


def labels(task: str) -> tuple[str, ...]:
    """The answers that the official rule looks for, in lower case.

    Raises:
        ValueError: unknown task.
    """
    check_task(task)
    return _LABELS[task]


def is_right(rule: str, task: str, question: str, target: str, output: str) -> bool:
    """Whether `output` answers `question` under one of `RULES`.

    Raises:
        ValueError: unknown rule or task.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown scoring rule {rule!r}: the rules are {', '.join(RULES)}.")
    check_task(task)
    return RULES[rule](task, question, target, output)


def _exact(task: str, question: str, target: str, output: str) -> bool:
    return output.split("<|endoftext|>")[0].strip() == target.strip()


def _substring(task: str, question: str, target: str, output: str) -> bool:
    return target.lower() in output.lower()


def _label_rule(find: Find, task: str, question: str, target: str, output: str) -> bool:
    """Right if the labels in the output, less those in the question, are those of the target and no others."""
    text, question, target = answer_part(output), question.lower(), target.lower()
    found = {label for label in _LABELS[task] if find(label, text) and not find(label, question)}
    is_list = "," in target and len(target) > 3  # "s,w" of qa19 is one label
    return found == set(target.split(",") if is_list else [target])


def answer_part(output: str) -> str:
    """The lower-cased output up to its first full stop, and before any example that the model goes on to write."""
    text = output.lower()
    for stop in _STOPS:
        text = text.split(stop)[0]
    return text


def _in_text(label: str, text: str) -> bool:
    return label in text


def _as_word(label: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None  # re keeps what it has compiled


RULES: dict[str, Callable[[str, str, str, str], bool]] = {
    "official": partial(_label_rule, _in_text),
    "word": partial(_label_rule, _as_word),
    "exact": _exact,
    "substring": _substring,
}
"""Rules by name: (task, question, target, output) -> right."""
