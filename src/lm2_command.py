"""The command `lm2`: finds the subcommand, and turns what goes wrong into one line and an exit code.

It stands beside the package `lm2` and not in it, because importing the package loads torch and transformers (seconds),
and help, the version and a typo should be answered at once. A subcommand is a module of `lm2.cli` with

    Options   a dataclass; tyro makes the flags and their help from it
    EXAMPLES  command lines shown under `--help`, run through the parser by a test
    STOPPED   what is left on disk after Ctrl-C, in one sentence
    run       Options -> None
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any, NamedTuple

OK, USAGE_ERROR, INTERRUPTED, UNREAD = 0, 2, 130, 141  # 128 + SIGINT and 128 + SIGPIPE, as shells report them


class Command(NamedTuple):
    """A subcommand: its module, one line of help, and an example for the overview."""

    module: str
    help: str
    example: str


COMMANDS = {
    "demo": Command(
        "lm2.cli.demo",
        "train LM2, RMT and a plain model, and compare how far back they remember",
        "lm2 demo",
    ),
    "reproduce": Command(
        "lm2.cli.reproduce",
        "LM2, RMT, ARMT, plain attention and retrieval on BABILong at equal budget",
        "lm2 reproduce --babi babi --books books",
    ),
    "convert": Command(
        "lm2.cli.convert",
        "add memory to a pretrained model: a folder, a hub name or a GGUF file",
        "lm2 convert SmolLM2-135M-Instruct.gguf smollm2-lm2",
    ),
    "generate": Command(
        "lm2.cli.generate",
        "continue a prompt, with a memory that can be kept in a file",
        'lm2 generate smollm2-lm2 "What is the capital of France?" --chat',
    ),
    "look": Command(
        "lm2.cli.look",
        "see what a memory wrote of a text, and what an answer read from it",
        'lm2 look smollm2-lm2 book.txt --ask "Who is Ada?"',
    ),
    "export": Command(
        "lm2.cli.export",
        "make a model folder from a training checkpoint, whole or in shards",
        "lm2 export runs/one/checkpoint-1000 my-lm2",
    ),
    "info": Command(
        "lm2.cli.info",
        "count a model's parameters and the bytes of its state",
        "lm2 info lm2-1.7b",
    ),
    "train retrofit": Command(
        "lm2.cli.train_retrofit",
        "give a pretrained model a memory and train it, alone at first and then with the base",
        "lm2 train retrofit --base SmolLM2-135M-Instruct.gguf --data data/books --out runs/smollm2-lm2",
    ),
    "train finetune-babilong": Command(
        "lm2.cli.train_babilong",
        "train a model with a memory on bAbI's questions in long texts",
        "lm2 train finetune-babilong --model runs/retrofit/model --tasks qa1 --background books/train.jsonl.gz",
    ),
    "train sft": Command(
        "lm2.cli.train_sft",
        "train a model with a memory on conversations about long documents",
        "lm2 train sft --model runs/retrofit/model --data chat.jsonl",
    ),
    "train books": Command(
        "lm2.cli.train_books",
        "train a model, small or pretrained, to remember what books say of people",
        "lm2 train books --books books/train.jsonl.gz",
    ),
    "train pretrain-tiny": Command(
        "lm2.cli.train_pretrain_tiny",
        "train a small model from nothing",
        "lm2 train pretrain-tiny --data data/books",
    ),
    "train pretrain-lm2-1.7b": Command(
        "lm2.cli.train_pretrain",
        "train the paper's model from nothing",
        "lm2 train pretrain-lm2-1.7b --dry-run",
    ),
    "data prepare": Command(
        "lm2.cli.data_prepare",
        "tokenize documents (files, folders, the hub) into a store for training",
        "lm2 data prepare books=books/train.jsonl.gz --tokenizer SmolLM2-135M-Instruct.gguf --out data/books",
    ),
    "data check": Command(
        "lm2.cli.data_check",
        "read a whole token store, and name a shard that is corrupt",
        "lm2 data check data/books",
    ),
    "eval mmlu": Command(
        "lm2.cli.eval_mmlu",
        "MMLU through lm-evaluation-harness",
        "lm2 eval mmlu smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --data mmlu.zip",
    ),
    "eval perplexity": Command(
        "lm2.cli.eval_perplexity",
        "perplexity by segment, with the memory carried and reset",
        "lm2 eval perplexity smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --text books/test.jsonl.gz",
    ),
    "eval needle": Command(
        "lm2.cli.eval_needle",
        "find a pass key, or a fact about a person, in long texts, by depth and length",
        "lm2 eval needle smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --lengths 1024 4096",
    ),
    "eval ruler": Command(
        "lm2.cli.eval_ruler",
        "RULER through lm-evaluation-harness, the tasks that need no download",
        "lm2 eval ruler smollm2-lm2 --lengths 1024 --limit 20",
    ),
    "eval babilong": Command(
        "lm2.cli.eval_babilong",
        "ask models BABILong's questions about long texts, with controls and baselines",
        "lm2 eval babilong smollm2-lm2 --babi babi --background books/test.jsonl.gz",
    ),
    "eval compare": Command(
        "lm2.cli.eval_compare",
        "test whether one of two models answers the same samples better",
        "lm2 eval compare runs/plain/report.json runs/lm2/report.json",
    ),
    "study write-rules": Command(
        "lm2.cli.study_write_rules",
        "compare write rules and training measures of the memory",
        "lm2 study write-rules",
    ),
}


def overview(group: str = "") -> str:
    """The text of `lm2 --help`, or of `lm2 GROUP --help`: every subcommand in a line, then one example of each."""
    listed = {name: command for name, command in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    lines = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in listed.items())
    examples = "\n".join(f"  {command.example}" for command in listed.values())
    return (
        f"usage: lm2 {group}COMMAND [OPTIONS]\n\n"
        "Large Memory Models: a causal, streaming memory for Hugging Face language models.\n\n"
        f"commands:\n{lines}\n\n"
        f"examples:\n{examples}\n\n"
        f"`lm2 {group}COMMAND --help` lists a command's options; `lm2 --version` prints the version.\n"
        "LM2_DEBUG=1 shows the traceback of an error."
    )


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Cut the subcommand's name (one or two words) off `argv`.

    Raises:
        ValueError: no subcommand has that name; the text suggests the nearest one, or lists those of a group.
    """
    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            return name, list(argv[words:])
    group = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
    if group and len(argv) == 1:
        raise ValueError(f"'{argv[0]}' alone is no command: choose one of {', '.join(group)}")
    nearest = _nearest(argv, group)
    remedy = f"perhaps you meant '{nearest}'" if nearest else f"choose one of {', '.join(group or COMMANDS)}"
    raise ValueError(f"there is no command '{' '.join(argv[: 2 if group else 1])}': {remedy}")


def _nearest(argv: Sequence[str], group: Sequence[str]) -> str | None:
    """The command whose words are most like what was typed, within `group` if that has any; perhaps a group's name."""
    first = argv[0] if group else _like(argv[0], [name.split()[0] for name in COMMANDS])
    seconds = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    second = _like(argv[1], seconds) if len(argv) > 1 else None
    return f"{first} {second}" if second else None if group else first


def _like(typed: str, words: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(typed, words, n=1)), None)


def parse(name: str, argv: Sequence[str]) -> tuple[ModuleType, Any]:
    """Import the module of subcommand `name` and make its options of the other words.

    Raises:
        SystemExit: tyro has printed help (code 0) or what is wrong with a flag (code 2).
    """
    import tyro

    module = importlib.import_module(COMMANDS[name].module)
    try:
        return module, tyro.cli(module.Options, prog=f"lm2 {name}", args=argv)
    finally:
        if "-h" in argv or "--help" in argv:  # tyro would wrap the examples as prose
            print("\n".join(("examples:", *(f"  {example}" for example in module.EXAMPLES))))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code: 0, 2 for an error of the user, 130 after Ctrl-C.

    It is 141 where who reads the output has seen enough, as in `lm2 --help | head -3`.
    """
    try:
        code = _main(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
        return UNREAD
    return code


def _main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return OK
    if argv[0] in ("-V", "--version"):
        print(f"lm2 {version('lm2')}")
        return OK
    group = f"{argv[0]} "
    if argv[1:] in (["-h"], ["--help"]) and any(name.startswith(group) for name in COMMANDS):
        print(overview(group))
        return OK
    try:
        name, rest = split(argv)
    except ValueError as error:
        return _fail(str(error))
    return _run(name, rest)


def _run(name: str, argv: Sequence[str]) -> int:
    stopped = "Nothing was written."
    try:
        module, options = parse(name, argv)
        stopped = module.STOPPED
        module.run(options)
    except BrokenPipeError:  # no error of the user's: see main
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("LM2_DEBUG") == "1":
            raise
        from lm2.errors import sentence

        return _fail(sentence(error))
    except KeyboardInterrupt:
        print(f"\nlm2: stopped. {stopped}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE_ERROR
    return OK


def _fail(text: str) -> int:
    print(f"lm2: error: {text}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
