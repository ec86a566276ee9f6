"""Which model answers, and how: the words on the command line, and the runner they stand for.

A model is written `[NAME=]SOURCE[@KIND[:NUMBER]][#SAMPLES]`. SOURCE is a folder, a GGUF file or a hub name; KIND is

    full       the whole prompt under full attention (what a plain model does without a KIND)
    last:L     the last L tokens only: the context is cut from the left, instruction and question stay
    window:W   sliding-window attention over W tokens, in constant memory
    rag:K      the K passages of the context nearest to the question, then as full

and models with a memory (LM2, RMT, ARMT) take no KIND: they read segment by segment in constant memory. A slow model
can be asked fewer questions than the others: #20 is the first 20 samples of each cell.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from lm2.errors import first_line
from lm2.evaluation.config import Dtype
from lm2.folders import (
    beside,
    check_vocabulary,
    has_tokenizer,
    model_type_of,
    read_tokenizer,
    read_whole,
    without_tokenizer,
)

KINDS = {"full": False, "last": True, "window": True, "rag": True}
"""Each kind, and whether it takes a number."""
DEFAULT_NUMBERS = {"rag": 5}
NAME = re.compile(r"(?:([\w.+ -]+)=)?(.+)", re.DOTALL)
FINGERPRINT_VALUES = 512


class TooLong(Exception):
    """A prompt that a model cannot take whole; the sample is marked and never cut in silence."""


class Runner(Protocol):
    """A model that answers questions about long texts.

    Attributes:
        name: what reports call it.
        description: its source, kind, settings and fingerprint, as JSON values.
    """

    name: str
    description: dict[str, Any]

    def answer(self, before: str, pieces: Iterable[str], after: str, max_new_tokens: int) -> str:
        """The greedy answer to the prompt `before` + the pieces + `after`.

        Raises:
            TooLong: the model cannot take the whole prompt.
        """
        ...


@runtime_checkable
class MemoryRunner(Runner, Protocol):
    """A runner whose state can be read once, kept, and asked (see `lm2.evaluation.runners.memory`)."""

    def read_all(self, before: str, texts: Sequence[Iterable[str]], policy: Any = None) -> list[Any]: ...
    def finish(self, state: Any, after: str, max_new_tokens: int) -> str: ...
    def exchange(self, state: Any, other: Any) -> Any: ...
    def segments(self, before: str, pieces: Iterable[str]) -> int: ...
    def reset(self, before: Any, after: Any, number: int) -> Any: ...
    def frozen_after(self, last: int) -> Any: ...


@dataclass(frozen=True)
class ModelSpec:
    """A model as it was named: `source` with `kind` (None: the model's own way) and its number; `samples` at most."""

    name: str
    source: str
    kind: str | None = None
    number: int | None = None
    samples: int | None = None


@dataclass(frozen=True)
class RunnerOptions:
    """What all models of one evaluation have in common."""

    chat: bool = False
    dtype: Dtype = "auto"
    device: str | None = None
    passage_words: int = 48
    retriever: Literal["bm25", "embedding"] = "bm25"
    embedding_model: str | None = None


def parse_spec(text: str) -> ModelSpec:
    """Read `[NAME=]SOURCE[@KIND[:NUMBER]][#SAMPLES]`; without a NAME it is made of the source's last part and the kind.

    Raises:
        ValueError: no source, an unknown kind, or a number that is missing, not wanted, or below 1.
    """
    text, limit = _limit(text)
    found = NAME.fullmatch(text.strip())
    name, rest = found.groups() if found else (None, "")
    if name is not None and Path(text).exists():  # a path with an = in it
        name, rest = None, text
    source, at, ending = rest.rpartition("@")
    if not at or "/" in ending or Path(rest).exists():
        source, ending = rest, ""
    if not source:
        raise ValueError(f"a model is [NAME=]SOURCE[@KIND[:NUMBER]], and {text!r} has no source: give a folder or name")
    if source.startswith("~"):  # behind NAME= no shell has done it
        source = str(Path(source).expanduser())
    kind, number = _kind(ending, text) if at and ending else (None, None)
    label = source_name(source).removesuffix(".gguf") + (f"@{ending}" if kind else "")
    return ModelSpec(name or label, source, kind, number, limit)


def source_name(source: str) -> str:
    """The last part of a path or hub name; of `.` and what ends in `..`, the name of the folder that it means."""
    name = Path(source).name
    return Path(source).resolve().name if name in ("", "..") else name


def _limit(text: str) -> tuple[str, int | None]:
    rest, mark, digits = text.rpartition("#")
    if not mark or not digits.isdecimal() or Path(text).exists():
        return text, None
    if int(digits) < 1:
        raise ValueError(f"{text!r} asks for {digits} samples of a cell: give at least 1, such as #20")
    return rest, int(digits)


def _kind(ending: str, text: str) -> tuple[str, int | None]:
    kind, colon, digits = ending.partition(":")
    if kind not in KINDS:
        raise ValueError(f"{text!r} asks for kind {kind!r}: choose one of {', '.join(KINDS)}")
    if not KINDS[kind] and colon:
        raise ValueError(f"{text!r}: {kind} takes no number: write @{kind}")
    number = int(digits) if digits.isdecimal() else DEFAULT_NUMBERS.get(kind) if not colon else None
    if KINDS[kind] and (number is None or number < 1):
        raise ValueError(
            f"{text!r}: {kind} needs a number of at least 1, such as @{kind}:{5 if kind == 'rag' else 512}"
        )
    return kind, number


def parse_specs(texts: Iterable[str], *, limits: bool = False) -> list[ModelSpec]:
    """All specs of a command line; `limits` says whether #SAMPLES means something there.

    Raises:
        ValueError: as `parse_spec`, none at all, two of one name, or a #SAMPLES where it means nothing.
    """
    specs = [parse_spec(text) for text in texts]
    for spec in specs:
        if spec.samples is not None and not limits:
            raise ValueError(f"{spec.name}#{spec.samples}: this evaluation asks every model the same; leave out the #")
    names = [spec.name for spec in specs]
    if not names:
        raise ValueError("no model was given: name at least one folder, GGUF file or hub name")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{len(specs)} models, and {sorted(twice)[0]!r} is the name of two: write NAME=SOURCE for one")
    return specs


def segment_length_of(source: str) -> int | None:
    """Tokens of a segment of a model with a memory, from its configuration alone; None of other models."""
    from transformers import PreTrainedConfig

    if Path(source).is_file():
        return None
    try:
        return PreTrainedConfig.get_config_dict(source)[0].get("segment_length")
    except OSError:
        return None  # loading the model says what is wrong


def load_runner(spec: ModelSpec, options: RunnerOptions) -> Runner:
    """Load a model and make its runner.

    Raises:
        ValueError: the model cannot be read, or its kind does not fit it.
    """
    import transformers

    from lm2.evaluation.codec import codec_of
    from lm2.evaluation.runners.attention import AttentionRunner
    from lm2.evaluation.runners.memory import StreamingRunner, has_memory
    from lm2.evaluation.runners.rag import RagRunner, retriever_of

    model, tokenizer = load_model(spec.source, options)
    codec = codec_of(model, tokenizer, chat=options.chat)
    facts = {
        "source": source_name(spec.source) if Path(spec.source).exists() else spec.source,
        "model_type": model.config.model_type,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "chat": options.chat,
        "fingerprint": fingerprint(model),
        "transformers": transformers.__version__,
    }
    if has_memory(model):
        if spec.kind is not None:
            raise ValueError(f"{spec.source} has a memory and reads segment by segment: leave out @{spec.kind}")
        return StreamingRunner(spec.name, facts, model, codec)
    limits = {spec.kind: spec.number} if spec.kind in ("last", "window") else {}
    plain = AttentionRunner(spec.name, facts, model, codec, **limits)
    if spec.kind != "rag":
        return plain
    assert spec.number is not None
    retriever = retriever_of(options.retriever, options.embedding_model)
    return RagRunner(spec.name, plain, retriever, spec.number, options.passage_words)


def load_model(source: str, options: RunnerOptions) -> tuple[Any, Any]:
    """A causal language model in evaluation mode on its device, and its tokenizer.

    Raises:
        ValueError: nothing there, damaged, without a tokenizer, or with one of more tokens than the model has.
    """
    import torch

    from lm2.progress import quiet

    quiet()
    device = options.device or (f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")
    _check_device(device)
    auto = "float32" if device.startswith("cpu") else "bfloat16"
    dtype = getattr(torch, auto if options.dtype == "auto" else options.dtype)
    model, tokenizer = _read(source, dtype)
    if tokenizer is None:
        raise ValueError(without_tokenizer(source))
    check_vocabulary(tokenizer, len(model.get_input_embeddings().weight), source)
    return model.to(device).eval(), tokenizer


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {first_line(error)}: give cpu, or cuda:0 where there is a GPU") from error


def _read(source: str, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    import lm2
    import lm2.baselines  # noqa: F401  (makes RMT and ARMT known to the Auto classes)
    from lm2.gguf import load_gguf

    path = Path(source)
    if path.is_file():
        model, tokenizer = load_gguf(path)
        for parameter in model.parameters():  # not buffers, such as the rotary frequencies
            parameter.data = parameter.data.to(dtype)
        return model, tokenizer
    local = path.is_dir()
    if local:
        model_type_of(path)
    if not local and (source.count("/") > 1 or source.startswith((".", "/", "~")) or source.endswith(".gguf")):
        raise ValueError(f"there is no folder or file {source}: give a folder, a GGUF file or a hub name")
    place = str(path) if local else source
    try:
        model = read_whole(AutoModelForCausalLM, place, source, dtype=dtype, local_files_only=local)
    except (OSError, ValueError) as error:
        elsewhere = f"check the name and the network, or give a local folder{beside(source)}"
        remedy = "save it again" if local else elsewhere
        raise ValueError(
            f"{source} cannot be read as a causal language model ({first_line(error)}): {remedy}"
        ) from error
    has_one = not local or has_tokenizer(path)
    return model, read_tokenizer(place, source, local_files_only=local) if has_one else None


def fingerprint(model: Any) -> str:
    """A short hash that tells two models apart: the configuration, and evenly spaced values of every weight."""
    import torch

    config = model.config.to_json_string(use_diff=True)
    digest = hashlib.sha256(re.sub(r'"(_name_or_path|transformers_version)":[^\n]*', "", config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        picked = flat[:: max(1, flat.numel() // FINGERPRINT_VALUES)].contiguous().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(picked.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
