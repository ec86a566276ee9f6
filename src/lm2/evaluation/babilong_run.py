"""`lm2 eval babilong` from options to files: answers, report.json, report.md and two pictures."""

from rich.console import Console
from rich.markdown import Markdown

from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.engine import evaluate
from lm2.evaluation.figure import draw_curves, draw_heat_map
from lm2.evaluation.page import markdown, published
from lm2.evaluation.report import REPORT_FILE, collect, save
from lm2.files import write_text
from lm2.processes import is_first
from lm2.progress import quiet

PAGE_FILE, HEAT_MAP_FILE, CURVES_FILE = "report.md", "heatmap.png", "curves.png"


def run(config: BabilongConfig) -> None:
    """Ask what has not been asked, then write and print the report (of several processes the first does).

    Raises:
        ValueError: an option, a model or the samples are wrong, or the folder holds answers of other settings.
        OSError: a file cannot be read or written.
    """
    config.check()
    quiet()
    source = config.source()
    config.out.mkdir(parents=True, exist_ok=True)
    asked = evaluate(config, source)
    if not is_first():
        return
    report = collect(config, source.description, asked)
    page = markdown(report, published(report) if config.anchors else ())
    save(report, config.out / REPORT_FILE)
    write_text(config.out / PAGE_FILE, page)
    draw_heat_map(report, config.out / HEAT_MAP_FILE)
    draw_curves(report, config.out / CURVES_FILE)
    console = Console()
    console.print(Markdown(page))
    files = ", ".join(str(config.out / name) for name in (REPORT_FILE, PAGE_FILE, HEAT_MAP_FILE, CURVES_FILE))
    console.print(f"Saved: {files}", soft_wrap=True, highlight=False)
