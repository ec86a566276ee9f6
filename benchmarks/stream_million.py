"""Feed a million tokens through lm2-tiny: does memory grow, does a token get slower?

    python benchmarks/stream_million.py [--tokens 1024000] [--out docs/results/stream_million.json]

Tokens come in super-chunks of 25 segments, and the cache goes from call to call. Resident memory and processor time
per token are taken over windows of 32,000 tokens, or of a super-chunk if it is longer, after one that is not counted;
the last window is compared with the first.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from lm2 import LM2Config, LM2ForCausalLM
from lm2.cache import LM2Cache
from lm2.files import write_json

WINDOW = 32_000


@dataclass(frozen=True)
class Options:
    """Stream random tokens through an untrained lm2-tiny."""

    tokens: int = 1_024_000
    """How many tokens to feed"""
    segments: int = 25
    """Segments of a super-chunk"""
    out: Path | None = None
    """JSON file for the numbers"""


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@torch.no_grad()
def stream(options: Options) -> list[dict[str, float]]:
    """Resident bytes and processor microseconds per token after each window."""
    torch.manual_seed(0)
    model = LM2ForCausalLM(LM2Config.preset("lm2-tiny")).eval()
    chunk = options.segments * model.config.segment_length
    _feed(model, WINDOW, chunk)
    return _feed(model, options.tokens, chunk)


def _feed(model: LM2ForCausalLM, tokens: int, chunk: int) -> list[dict[str, float]]:
    cache, windows, seen, counted, began = LM2Cache(model.config), [], 0, 0, time.process_time()
    while seen < tokens:
        ids = torch.randint(3, model.config.vocab_size, (1, chunk))
        model(ids, past_key_values=cache, logits_to_keep=1)
        seen += chunk
        if seen % WINDOW < chunk:
            now = time.process_time()
            took = (now - began) / (seen - counted) * 1e6
            windows.append({"tokens": seen, "resident": resident_bytes(), "microseconds": took})
            counted, began = seen, now
    return windows


def main() -> None:
    options = tyro.cli(Options)
    windows = stream(options)
    first, last = windows[0], windows[-1]
    typical = sorted(w["microseconds"] for w in windows[1:])[len(windows[1:]) // 2] if len(windows) > 1 else 0.0
    result = {
        "tokens": last["tokens"],
        "resident_ratio": last["resident"] / first["resident"],
        "time_ratio_last_to_first": last["microseconds"] / first["microseconds"],
        "median_microseconds_per_token": typical,
        "windows": windows,
    }
    print(
        f"{last['tokens']:,} tokens: resident memory {last['resident'] / 2**20:.0f} MiB, "
        f"{result['resident_ratio']:.3f} of that after {first['tokens']:,}; "
        f"{last['microseconds']:.1f} us a token, {result['time_ratio_last_to_first']:.3f} of the first window's "
        f"(median {typical:.1f} us)"
    )
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
