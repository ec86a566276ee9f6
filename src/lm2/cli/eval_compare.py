"""`lm2 eval compare A.json B.json`: the paired test of two BABILong reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

EXAMPLES = (
    "lm2 eval compare runs/plain/report.json runs/lm2/report.json",
    "lm2 eval compare runs/babilong runs/babilong --models plain rag --out comparison.json",
)
STOPPED = "Nothing was written."


@dataclass(frozen=True)
class Options:
    """Test whether one of two models answers the same samples better (an exact paired test)."""

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """A report.json of `lm2 eval babilong`, or its folder."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The other report; it may be the same one."""
    models: tuple[str, str] | None = None
    """The model of each report; needed where a report has several."""
    out: Path | None = None
    """Write the comparison to this JSON file too."""


def run(options: Options) -> None:
    """Compare and print the table."""
    from rich.console import Console
    from rich.markdown import Markdown

    from lm2.evaluation.compare import compare, markdown
    from lm2.files import check_place, write_json

    if options.out is not None:
        check_place("--out", options.out)
    found = compare(options.first, options.second, *(options.models or ()))
    if options.out is not None:
        write_json(options.out, found)
    Console().print(Markdown(markdown(found)))
