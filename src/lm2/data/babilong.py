"""BABILong's composition of a long text: facts scattered, in order, over background sentences.

Everything is in tokens. Items (facts, or facts with questions between them) and background sentences arrive as token
ids; the text has exactly the wanted number of them.

Source: Kuratov et al. 2024, "BABILong: Testing the Limits of LLMs with Long Context Reasoning-in-a-Haystack".
"""

from collections.abc import Iterator, Sequence

import numpy as np

Ids = Sequence[int] | np.ndarray


def background_text(opening: Sequence[int], sentences: Iterator[Ids], n_tokens: int) -> list[int]:
    """A text of exactly so many tokens that is background from its opening on."""
    return [*opening, *take_background(sentences, n_tokens - len(opening))[0].tolist()]


def take_background(sentences: Iterator[Ids], n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Exactly `n_tokens` ids of background and its gaps: (ids, token position of each place between sentences).

    The last sentence is cut to make the count exact; sentences not used stay in the iterator for the next text.
    Gaps include the start and the end, so there is always at least one.
    """
    taken: list[Ids] = []
    gaps = [0]
    while gaps[-1] < n_tokens:
        taken.append(next(sentences))
        gaps.append(gaps[-1] + len(taken[-1]))
    gaps[-1] = n_tokens
    ids = np.concatenate(taken)[:n_tokens] if taken else np.empty(0)
    return ids.astype(np.int64), np.array(gaps)


def draw_offsets(gaps: np.ndarray, lengths: np.ndarray, rng: np.random.Generator, draws: int = 1) -> np.ndarray:
    """Where the items start in the finished text, (draws, n items), for several independent draws.

    One gap for each item, uniform with replacement, then sorted: items keep their order and may be neighbours.
    """
    chosen = np.sort(rng.integers(len(gaps), size=(draws, len(lengths))), axis=1)
    return gaps[chosen] + np.cumsum(lengths) - lengths


def merge(background: np.ndarray, items: Sequence[Ids], offsets: np.ndarray) -> np.ndarray:
    """The text in which item i starts at `offsets[i]` and the background fills the rest."""
    if not items:
        return background
    lengths = np.array([len(item) for item in items])
    before = offsets - (np.cumsum(lengths) - lengths)
    return np.insert(background, np.repeat(before, lengths), np.concatenate(items).astype(np.int64))


def compose(
    items: Sequence[Ids], sentences: Iterator[Ids], n_tokens: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A text of exactly `n_tokens` ids: (ids, offset of the first token of each item).

    Raises:
        ValueError: the items alone are longer than `n_tokens`.
    """
    lengths = np.array([len(item) for item in items], dtype=np.int64)
    room = n_tokens - int(lengths.sum())
    if room < 0:
        raise ValueError(
            f"The {len(items)} facts have {lengths.sum()} tokens, more than the text of {n_tokens}: "
            "use fewer facts or a longer text."
        )
    background, gaps = take_background(sentences, room)
    offsets = draw_offsets(gaps, lengths, rng)[0]
    return merge(background, items, offsets), offsets
