"""`lm2 look MODEL TEXT`: what a memory wrote of a text, and what an answer read from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

EXAMPLES = (
    'lm2 look smollm2-lm2 book.txt --ask "Who is Ada?"',
    'lm2 look models/lm2-tiny-qa1 story.txt --ask " Where is Mary?" " Where is John?" --max-new-tokens 1',
    "lm2 look smollm2-lm2 - --out runs/look-book < book.txt",
)
STOPPED = "Files of an earlier look are as they were."


@dataclass(frozen=True)
class Options:
    """See what a memory wrote of a text, what an answer read from it, and what the answer is without that.

    Prints a table for each question, and writes look.html (a page to look at), look.png and look.json.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The folder of a saved LM2 model."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """A text file; - reads standard input."""
    ask: tuple[str, ...] = ()
    """Questions, each asked by itself after the text; without any, only what was written is shown."""
    out: Path = Path("runs/look")
    """Folder of the page, the picture and the numbers."""
    without: int = 3
    """How many places (runs of written tokens) to leave out, those read most: each alone, then all together."""
    max_new_tokens: int = 8
    """Most tokens of an answer. Its probability is that of all of them: give 1 for a model that ends no answer."""


def run(options: Options) -> None:
    """Look, print, and write the files."""
    from rich.console import Console

    from lm2.analysis import figure, page, report
    from lm2.analysis.look import look
    from lm2.cli.checkpoint import load
    from lm2.cli.reading import read_input, read_text
    from lm2.data.sources import checked
    from lm2.evaluation.canvas import new_figure
    from lm2.files import write_json, write_text
    from lm2.progress import TimeLeft

    new_figure(1, 1)  # without matplotlib or a folder all the reading would be for nothing
    check_folder(options.out)
    for question in options.ask:
        checked(question, "a question")
    text = checked(read_input() if options.text == "-" else read_text(Path(options.text)), "the text")
    model, tokenizer = load(options.model)
    with TimeLeft(transient=True) as bar:
        line = bar.add_task("reading", total=None)
        found = look(
            model,
            tokenizer,
            text,
            options.ask,
            options.without,
            options.max_new_tokens,
            lambda done, total: bar.update(line, completed=done, total=total),
        )
    options.out.mkdir(parents=True, exist_ok=True)
    files = [options.out / f"look.{kind}" for kind in ("html", "png", "json")]
    figure.draw(found, files[1])
    write_text(files[0], page.page(found, options.model.name, files[1].read_bytes()))
    write_json(files[2], {"model": str(options.model.name), **report.record(found)})
    console = Console()
    report.show(found, console)
    console.print(f"\nSaved: {', '.join(map(str, files))}", soft_wrap=True, highlight=False)


def check_folder(out: Path) -> None:
    """Raises ValueError if --out, or what it is in, is a file."""
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--out is {out}, and {there} is a file: choose a folder")
