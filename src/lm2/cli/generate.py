"""`lm2 generate MODEL PROMPT`: continue a text, with a memory that can outlive the process."""

import copy
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lm2.cli.checkpoint import load
from lm2.cli.reading import read_input
from lm2.files import check_place

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lm2 import LM2Cache, LM2ForCausalLM

EXAMPLES = (
    'lm2 generate smollm2-lm2 "What is the capital of France?" --chat',
    'lm2 generate smollm2-lm2 "My name is Ada." --cache ada.safetensors --max-new-tokens 1',
    "lm2 generate smollm2-lm2 - --cache book.safetensors --max-new-tokens 0 < book.txt",
    'lm2 generate smollm2-lm2 "Who is Ada?" --cache book.safetensors --read-only',
)
SAID = "[what was said before]"
STOPPED = "The cache file is as it was before this command."


@dataclass(frozen=True)
class Options:
    """Continue a prompt and print the text as it comes, or only read it into a memory that is kept."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The folder of a saved LM2 model."""
    prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]
    """The text to continue; - reads it from standard input."""
    cache: Path | None = None
    """Keep the memory in this file: go on from it if it exists, and save it there at the end."""
    read_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave the file of the memory as it is: the prompt and its continuation are forgotten."""
    chat: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the prompt as a user's message in the chat format; after a memory that was kept, as a further message."""
    max_new_tokens: int = 64
    """Stop after so many tokens; 0 only reads the prompt into --cache and prints nothing."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher values sample."""
    seed: int = 0
    """Seed of the sampling."""

    def check(self) -> None:
        """Raises ValueError where an option is out of range or does not go with another."""
        kept = self.cache is not None and not self.read_only
        if self.max_new_tokens == 0 and not kept:
            raise ValueError("--max-new-tokens is 0, which only reads: give --cache FILE, or nothing would be kept")
        if self.max_new_tokens < 0:
            raise ValueError(f"--max-new-tokens is {self.max_new_tokens}: it must be 1 or more, or 0 with --cache")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"--temperature is {self.temperature}: it must be 0 (greedy) or more, and finite")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}: it must be 0 or more, and below 2^32")
        if self.read_only and (self.cache is None or not self.cache.exists()):
            raise ValueError(
                f"--read-only needs a memory that was kept, and --cache is {self.cache or 'not given'}: read a text "
                "into one first, with --cache FILE --max-new-tokens 0"
            )
        if self.cache is not None:
            check_place("--cache", self.cache)


def run(options: Options) -> None:
    """Read the prompt, print the continuation, keep the memory."""
    options.check()
    text = read_input() if options.prompt == "-" else options.prompt
    if not text.strip():
        raise ValueError("the prompt is empty: give at least one word")
    from transformers import set_seed

    from lm2 import LM2Cache
    from lm2.data.sources import checked

    checked(text, "the prompt")

    model, tokenizer = load(options.model)
    known = options.cache is not None and options.cache.exists()
    cache = LM2Cache.load(options.cache, model) if known else LM2Cache(model.config)
    before = cache.seen
    ids = encode(tokenizer, text, chat=options.chat, begins=not cache.rows).to(model.device)
    set_seed(options.seed)
    if options.max_new_tokens:
        read_long(model, ids[:, :-1], cache)
        stream(model, tokenizer, ids[:, -1:], cache, options)
    else:
        read_long(model, ids, cache)
    if options.cache is not None and not options.read_only:
        cache.save(options.cache, model)
        told = f"went on from {before:,} tokens; remove it to begin anew" if before else "new"
        print(f"{options.cache} has read {cache.seen:,} tokens ({told})", file=sys.stderr)


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, *, chat: bool, begins: bool) -> "Tensor":
    """Token ids (1, L) of a plain text, or of a user's message in the chat format.

    Args:
        begins: whether nothing was read before; only then a start token is put before a plain text, and what a chat
            format begins with, such as a system's message, before a user's.

    Raises:
        ValueError: `chat` with a tokenizer that has no chat format.
    """
    if not chat:
        import torch

        from lm2.data.tokenizer import opening

        start = opening(tokenizer) if begins else []  # and no end token behind a text that is to go on
        return torch.tensor([start + tokenizer(text, add_special_tokens=False).input_ids])
    if tokenizer.chat_template is None:
        raise ValueError("this model's tokenizer has no chat format: leave out --chat")
    before = [] if begins else [{"role": "user", "content": SAID}, {"role": "assistant", "content": SAID}]
    message = {"role": "user", "content": text}
    rendered = tokenizer.apply_chat_template([*before, message], add_generation_prompt=True, tokenize=False)
    assert isinstance(rendered, str)
    if before:
        # An answer was read with the token that ended it, so that what follows is what a whole conversation has there.
        rendered = rendered.split(SAID, 2)[2].removeprefix(tokenizer.eos_token or "")
    return tokenizer(rendered, add_special_tokens=False, return_tensors="pt").input_ids


def read_long(model: "LM2ForCausalLM", ids: "Tensor", cache: "LM2Cache") -> None:
    """Read tokens (1, L), with a bar where they are many."""
    from lm2.progress import counted
    from lm2.streaming import SEGMENTS_AT_ONCE, read

    few = ids.shape[1] <= SEGMENTS_AT_ONCE * model.config.segment_length
    with counted(f"reading {ids.shape[1]:,} tokens", ids.shape[1], transient=True, disable=few) as advance:
        read(model, ids, cache, advance)


def stream(
    model: "LM2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", last: "Tensor", cache: "LM2Cache", options: Options
) -> None:
    """Print what follows the token `last` (1, 1); then `cache` has seen every token, also the last one printed."""
    import torch
    from transformers import TextStreamer

    settings = copy.deepcopy(model.generation_config)
    settings.update(
        max_new_tokens=options.max_new_tokens,
        num_beams=1,  # what is printed as it comes cannot be taken back
        num_return_sequences=1,
        use_cache=True,  # the memory is there, whatever a base was saved with
        do_sample=options.temperature > 0,
        temperature=options.temperature or None,
        **({} if options.temperature else {"top_p": None, "top_k": None}),  # transformers warns of them when greedy
    )
    with torch.no_grad():
        output = model.generate(  # ty: ignore[invalid-argument-type]  (a protocol that only transformers' own models meet)
            last,
            past_key_values=cache,
            generation_config=settings,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
        model(output[:, -1:], past_key_values=cache)
