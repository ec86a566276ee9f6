"""The command `lm2`: one module per subcommand, found by name and imported only when it is called.

A module of a subcommand has

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
from typing import Any

from lm2.errors import USER_ERRORS, sentence

COMMANDS = {
    "demo": ("lm2.cli.demo", "train LM2, RMT and a plain model, and compare how far back they remember"),
    "convert": ("lm2.cli.convert", "add memory to a pretrained model: a folder, a hub name or a GGUF file"),
    "generate": ("lm2.cli.generate", "continue a prompt, with a memory that can be kept in a file"),
    "info": ("lm2.cli.info", "count a model's parameters and the bytes of its state"),
    "study write-rules": ("lm2.cli.study_write_rules", "compare write rules and training measures of the memory"),
}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
USAGE_ERROR = 2


def overview() -> str:
    """The text of `lm2 --help`: every subcommand in a line, then one example of each."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {help_}" for name, (_, help_) in COMMANDS.items())
    examples = "\n".join(f"  {load(name).EXAMPLES[0]}" for name in COMMANDS)
    return (
        "usage: lm2 COMMAND [OPTIONS]\n\n"
        "Large Memory Models: a causal, streaming memory for Hugging Face language models.\n\n"
        f"commands:\n{commands}\n\n"
        f"examples:\n{examples}\n\n"
        "`lm2 COMMAND --help` lists a command's options; `lm2 --version` prints the version.\n"
        "LM2_DEBUG=1 shows the traceback of an error."
    )


def load(name: str) -> ModuleType:
    """Import the module of subcommand `name`; such modules import nothing heavy before `run`."""
    return importlib.import_module(COMMANDS[name][0])


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Cut the subcommand's name (one or two words) off `argv`.

    Raises:
        ValueError: no subcommand has that name; the text suggests the nearest one.
    """
    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            return name, list(argv[words:])
    typed = " ".join(argv[:2]) if any(name.startswith(f"{argv[0]} ") for name in COMMANDS) else argv[0]
    nearest = difflib.get_close_matches(typed, COMMANDS, n=1, cutoff=0.5)
    remedy = f"perhaps you meant '{nearest[0]}'" if nearest else f"choose one of {', '.join(COMMANDS)}"
    raise ValueError(f"there is no command '{typed}': {remedy}")


def parse(argv: Sequence[str]) -> tuple[ModuleType, Any]:
    """Turn a command line without the leading `lm2` into the subcommand's module and its options.

    Raises:
        ValueError: unknown subcommand.
        SystemExit: tyro has printed help (code 0) or what is wrong with a flag (code 2).
    """
    import tyro

    name, rest = split(argv)
    module = load(name)
    try:
        return module, tyro.cli(module.Options, prog=f"lm2 {name}", args=rest)
    finally:
        if "-h" in rest or "--help" in rest:  # tyro would wrap the examples as prose
            print("\n".join(("examples:", *(f"  {example}" for example in module.EXAMPLES))))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code: 0, 2 for an error of the user, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"lm2 {version('lm2')}")
        return 0
    return _run(argv)


def _run(argv: Sequence[str]) -> int:
    stopped = ""
    try:
        module, options = parse(argv)
        stopped = module.STOPPED
        module.run(options)
    except USER_ERRORS as error:
        if os.environ.get("LM2_DEBUG") == "1":
            raise
        print(f"lm2: error: {sentence(error)}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"\nlm2: stopped. {stopped}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE_ERROR
    return 0
