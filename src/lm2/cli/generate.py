"""`lm2 generate MODEL PROMPT`: continue a text, with a memory that can outlive the process."""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lm2.cli.checkpoint import load

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lm2 import LM2Cache, LM2ForCausalLM

EXAMPLES = (
    'lm2 generate smollm2-lm2 "What is the capital of France?" --chat',
    'lm2 generate smollm2-lm2 "My name is Ada." --cache ada.safetensors --max-new-tokens 1',
    "lm2 generate smollm2-lm2 - --cache book.safetensors < book.txt",
)
STOPPED = "The cache file is as it was before this command."


@dataclass(frozen=True)
class Options:
    """Continue a prompt and print the text as it comes."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The folder of a saved LM2 model."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    """The text to continue; - reads it from standard input."""
    cache: Path | None = None
    """Keep the memory in this file: go on from it if it exists, and save it there at the end."""
    chat: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the prompt as a user's message, in the model's chat format."""
    max_new_tokens: int = 64
    """Stop after so many tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher values sample."""
    seed: int = 0
    """Seed of the sampling."""


def run(options: Options) -> None:
    """Read the prompt, print the continuation, keep the memory."""
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    if not text.strip():
        raise ValueError("the prompt is empty: give at least one word")
    if options.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {options.max_new_tokens}: it must be at least 1")
    if options.temperature < 0:
        raise ValueError(f"--temperature is {options.temperature}: it must be 0 (greedy) or more")
    from transformers import set_seed

    from lm2 import LM2Cache

    model, tokenizer = load(options.model)
    known = options.cache is not None and options.cache.exists()
    cache = LM2Cache.load(options.cache, model) if known else LM2Cache(model.config)
    set_seed(options.seed)
    stream(model, tokenizer, encode(tokenizer, text, chat=options.chat).to(model.device), cache, options)
    if options.cache is not None:
        cache.save(options.cache, model)


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, *, chat: bool) -> "Tensor":
    """Token ids (1, L) of a plain text, or of a user's message in the chat format.

    Raises:
        ValueError: `chat` with a tokenizer that has no chat format.
    """
    if not chat:
        return tokenizer(text, return_tensors="pt").input_ids
    if tokenizer.chat_template is None:
        raise ValueError("this model's tokenizer has no chat format: leave out --chat")
    message = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return tokenizer(rendered, add_special_tokens=False, return_tensors="pt").input_ids


def stream(
    model: "LM2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", ids: "Tensor", cache: "LM2Cache", options: Options
) -> None:
    """Print the continuation of `ids` (1, L); afterwards `cache` has seen every token, also the last one printed."""
    import torch
    from transformers import TextStreamer

    from lm2.streaming import read

    settings = copy.deepcopy(model.generation_config)
    settings.update(
        max_new_tokens=options.max_new_tokens,
        do_sample=options.temperature > 0,
        temperature=options.temperature or None,
        **({} if options.temperature else {"top_p": None, "top_k": None}),  # transformers warns of them when greedy
    )
    with torch.no_grad():
        read(model, ids[:, :-1], cache)
        output = model.generate(  # ty: ignore[invalid-argument-type]  (a protocol that only transformers' own models meet)
            ids[:, -1:],
            past_key_values=cache,
            generation_config=settings,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
        model(output[:, -1:], past_key_values=cache)
