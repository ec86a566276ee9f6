"""MMLU once more, from its description alone: no harness, no batches, no code of ours. And small CSV files for it."""

import csv
from pathlib import Path

import numpy as np
import torch

from lm2.data import grammar


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def block(row: list[str], answered: bool) -> str:
    lines = [row[0].strip(), *(f"{letter}. {choice}" for letter, choice in zip("ABCD", row[1:5], strict=True))]
    return "\n".join([*lines, f"Answer: {row[5]}\n\n" if answered else "Answer:"])


@torch.no_grad()
def answers(model, tokenizer, folder: Path, subject: str, shots: int = 5) -> tuple[list[int], list[int]]:
    """The picked choice of each test question, and the number of tokens of each input."""
    dev, test = (rows_of(folder / split / f"{subject}_{split}.csv") for split in ("dev", "test"))
    head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    head += "".join(block(row, answered=True) for row in dev[:shots])
    picks, lengths = [], []
    for row in test:
        context = tokenizer(head + block(row, answered=False)).input_ids
        last = [tokenizer(head + block(row, answered=False) + f" {letter}").input_ids[-1] for letter in "ABCD"]
        logits = model(torch.tensor([context])).logits[0, -1]
        picks.append(int(logits[last].argmax()))
        lengths.append(len(context))
    return picks, lengths


def write_csv(folder: Path, subjects: list[str], questions: int, seed: int = 0) -> Path:
    """Questions of generated sentences, some with quotes, commas, line ends and words that tables take for gaps."""
    rng = np.random.default_rng(seed)
    odd = ["None", "NA", "0.50", "007", 'a "quoted", text', "two\nlines"]
    for split, count in (("dev", 5), ("test", questions)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            with (folder / split / f"{subject}_{split}.csv").open("w", encoding="utf-8", newline="") as file:
                for _ in range(count):
                    choices = [rng.choice(odd) if rng.random() < 0.2 else grammar.sentence(rng) for _ in range(4)]
                    csv.writer(file).writerow([f" {grammar.sentence(rng)}", *choices, rng.choice(list("ABCD"))])
    return folder
