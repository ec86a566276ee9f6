"""The page of a look: questions with what they read, and the text where it was written. One file, nothing to fetch."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from html import escape

from lm2.analysis.report import rows
from lm2.analysis.results import Answer, Look, Place

MOST = 1000
"""Places that are shown of a text, at most: of more, those that are written or read most."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
overflow-wrap: anywhere; } th { overflow-wrap: normal; } .table { overflow-x: auto; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; vertical-align: top; }
tr { border-top: 1px solid #ddd; } th { font-weight: 600; } td.n { text-align: right; white-space: nowrap; }
.before, .gap { color: #777; } mark { color: inherit; border-radius: 3px; padding: 0 2px; }
.gap { display: block; font-size: .85rem; margin: .2rem 0; } .read { outline: 2px solid #D55E00; }
.token { display: inline-block; text-align: center; margin-right: .4rem; cursor: help; }
.token i { display: block; height: .5rem; background: #0072B2; } p.note { color: #555; font-size: .9rem; }
img { max-width: 100%; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } tr { border-color: #444; }
.before, .gap, p.note { color: #999; } img { background: #fff; } }
"""


def page(found: Look, model: str, picture: bytes) -> str:
    """The whole page.

    Args:
        model: its name.
        picture: a PNG file, what `lm2.analysis.figure.draw` wrote.
    """
    blocks = "block" if len(found.layers) == 1 else "blocks"
    facts = f"{escape(model)}, memory in {blocks} {', '.join(map(str, found.layers))}: {found.summary()}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>A look into the memory of {escape(model)}</title><style>{STYLE}</style>",
        f"<h1>A look into the memory</h1><p>{facts}</p>",
        *(section for answer in found.answers for section in _answer(found, answer)),
        "<h2>What was written to which slot</h2>",
        f"<img alt='Slots by tokens' src='data:image/png;base64,{b64encode(picture).decode()}'>",
        "<h2>Where the text was written</h2>",
        "<p class=note>What a place is about mostly stands before it: a fact is written when its last word has been "
        "read. The darker, the more was written; outlined is what the questions read most.</p><p>",
        *_text(found),
        "</p></html>",
    ]
    return "\n".join(parts) + "\n"


def _answer(found: Look, answer: Answer) -> Iterator[str]:
    """A question: its answer, what each of its tokens read, and the answer without single places."""
    yield f"<h2>{escape(answer.question.strip())} <b>{escape(answer.text.strip())}</b></h2>"
    yield f"<p>Probability of this answer: {answer.probability:.3f}. How much each token read of the memory:</p>"
    yield f"<p>{''.join(_tokens(found, answer))}</p>"
    yield "<div class=table><table>"
    yield "<tr><th>read<th>written<th>tokens ago<th>probability without it<th>what was written, after what"
    for cells, note, place in rows(found, answer):
        yield _row(cells, f"<i>{note}</i>" + (_passage(place, read=not note) if place else ""))
    yield "</table></div>"


def _row(numbers: list[str], text: str) -> str:
    return "<tr>" + "".join(f"<td class=n>{number}" for number in numbers) + f"<td>{text}"


def _tokens(found: Look, answer: Answer) -> Iterator[str]:
    """The question's tokens: how wide the bar, so much was read; the title tells of what."""
    most = max((token.size for token in answer.tokens), default=0.0) or 1.0
    for token in answer.tokens:
        title = "nothing of the text"
        if token.place is not None:
            place = found.places[token.place]
            title = f"{100 * token.share:.0f} % of it: {place.before[-80:]}[{place.text.strip()}]"
        bar = f"<i style='width:{100 * token.size / most:.0f}%'></i>"
        yield f"<span class=token title='{escape(title, quote=True)}'>{escape(token.text)}{bar}</span>"


def _text(found: Look) -> Iterator[str]:
    """The places in order, with what lies between them told by its length."""
    read = found.read_most()
    order = sorted(range(len(found.places)), key=lambda i: (i not in read, -found.places[i].written))
    if len(order) > MOST:
        yield f"<span class=gap>{MOST:,} of {len(order):,} places are shown, those read or written most.</span>"
    past, end = 0, 0
    for i in sorted(order[:MOST]):
        place = found.places[i]
        begin = place.at - len(place.before)
        if begin > end and (left := place.first - place.before_tokens - past) > 0:
            yield f"<span class=gap>… {left:,} tokens …</span>"
        yield _passage(replace(place, before=place.before[max(0, end - begin) :]), i in read)
        past, end = place.first + place.tokens, place.at + len(place.text)
    if found.tokens > past:
        yield f"<span class=gap>… {found.tokens - past:,} tokens</span>"


def _passage(place: Place, read: bool) -> str:
    """The text before a place, and its tokens on a ground as dark as they are written."""
    shade = f"background: rgba(0, 114, 178, {0.15 + 0.5 * place.written:.2f})"
    kind = " class=read" if read else ""
    return f"<span class=before>{escape(place.before)}</span><mark{kind} style='{shade}'>{escape(place.text)}</mark>"
