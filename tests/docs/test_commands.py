"""Every `lm2 ...` and `make ...` command of the documents, and every example of the help, is one that exists."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import lm2_command as cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASH_BLOCK = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """The commands of the bash blocks: comments and prompts dropped, continued lines joined."""
    lines = "\n".join(BASH_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip() and not line.lstrip().startswith("#")]


def words_of(line: str) -> list[str]:
    """The words of the first command of a line, without environment variables, redirections and pipes."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
        words.pop(0)
    ends = [i for i, word in enumerate(words) if word in ("<", ">", "|", "&&", ";")]
    return words[: ends[0]] if ends else words


def documented(program: str) -> list[str]:
    lines = [line for path in DOCUMENTS if path.exists() for line in command_lines(path.read_text(encoding="utf-8"))]
    return [line for line in lines if words_of(line)[:1] == [program]]


HELP_EXAMPLES = [
    example for command in cli.COMMANDS.values() for example in importlib.import_module(command.module).EXAMPLES
]


@pytest.mark.parametrize("line", sorted({*documented("lm2"), *HELP_EXAMPLES}))
def test_the_command_parses(line):
    words = words_of(line)[1:]
    if set(words) & {"--help", "--version"}:
        assert cli.main(words) == 0
    else:
        module, options = cli.parse(*cli.split(words))
        assert isinstance(options, module.Options)


@pytest.mark.parametrize("line", sorted(set(documented("make"))))
def test_the_make_target_exists(line):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words_of(line)[1:] if "=" not in word]
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target} in the Makefile"


def test_the_readme_shows_the_two_commands():
    lines = command_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    assert any("make demo" in line for line in lines)
    assert any("make test" in line for line in lines)


def test_commands_are_found_in_blocks_only():
    text = "`lm2 x`\n```bash\n# note\n$ A=1 lm2 demo \\\n  --n 3 > log  # later\n```\n```python\nlm2 y\n```\n"
    assert [words_of(line) for line in command_lines(text)] == [["lm2", "demo", "--n", "3"]]
