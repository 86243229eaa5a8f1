"""Markdown of a report to HTML: no raw HTML, no addresses, figures inside, headings that a contents list can name.

The report's own fold (``<details><summary>`` on a line of its own) is the one piece of HTML that is understood.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from reports.html.escape import attribute, visible

LARGEST_SVG = 600_000  # bytes; a larger figure goes in as pixels
_FOLD = re.compile(r"<details><summary>(.*)</summary>")
_LOCAL = re.compile(r"#[\w-]+|[\w-]+(\.[\w-]+)+")


class Heading(NamedTuple):
    """An entry of the contents list. ``level``: 2 or 3."""

    level: int
    id: str
    text: str


class Body(NamedTuple):
    """``title``: text of the page's first heading. ``html``: all behind it."""

    title: str
    html: str
    headings: list[Heading]


def render(text: str, folder: Path, figures: Collection[str]) -> Body:
    """``figures``: names of the files in ``folder`` that may be shown; any other image is shown as its words."""
    maker = _Maker(folder, frozenset(figures))
    parts: list[str] = []
    lines: list[str] = []
    depth = 0

    def flush() -> None:
        parts.append(maker.block("\n".join(lines), contents=not depth))
        lines.clear()

    for line in visible(text).split("\n"):
        if fold := _FOLD.fullmatch(line):
            flush()
            parts.append(f"<details><summary>{attribute(fold[1])}</summary>\n")
            depth += 1
        elif depth and line == "</details>":
            flush()
            parts.append("</details>\n")
            depth -= 1
        else:
            lines.append(line)
    flush()
    parts += ["</details>\n" * depth, "</section>\n" if maker.open else ""]
    return Body(maker.title, "".join(parts), maker.headings)


class _Maker:
    def __init__(self, folder: Path, figures: frozenset[str]) -> None:
        self.folder, self.figures = folder, figures
        self.title, self.open = "", False
        self.headings: list[Heading] = []
        self.md = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["autolink", "html_inline"])
        self.md.validateLink = lambda url: bool(_LOCAL.fullmatch(url))  # type: ignore[method-assign]
        self.md.renderer.rules |= {  # type: ignore[attr-defined]
            "image": self._image,
            "table_open": lambda *_: '<div class="table"><table>\n',
            "table_close": lambda *_: "</table></div>\n",
        }

    def block(self, text: str, contents: bool) -> str:
        """Markdown to HTML; headings of level 2 begin sections, unless within a fold (``contents`` false)."""
        tokens = self.md.parse(text)
        out: list[Token] = []
        if contents and not self.title and tokens and tokens[0].tag == "h1":
            self.title, tokens = _plain(tokens[1]), tokens[3:]  # the template shows it
        for i, token in enumerate(tokens):
            if token.type == "heading_open" and contents:
                self._heading(token, tokens[i + 1], out)
            elif token.type == "paragraph_open" and _only_images(tokens[i + 1]):
                token.tag = tokens[i + 2].tag = "figure"
            elif token.type in ("th_open", "td_open"):
                _cell(token, tokens[i - 1], tokens[i + 2])
            out.append(token)
        return str(self.md.renderer.render(out, self.md.options, {}))

    def _heading(self, token: Token, inline: Token, out: list[Token]) -> None:
        text = _plain(inline)
        if token.tag == "h2":
            lead = ' class="lead"' if text.lower().startswith("in short") else ""
            out.append(_raw(("</section>\n" if self.open else "") + f"<section{lead}>\n"))
            self.open = True
        if token.tag in ("h2", "h3"):
            name = f"h{len(self.headings) + 1}"
            token.attrSet("id", name)
            self.headings.append(Heading(int(token.tag[1]), name, text))

    def _image(self, tokens: list[Token], i: int, *_: Any) -> str:
        words, name = attribute(_plain(tokens[i])), str(tokens[i].attrGet("src") or "")
        source = self._data(name) if name in self.figures else None
        return f'<img src="{source}" alt="{words}">' if source else f"[{words}]"

    def _data(self, name: str) -> str | None:
        """A figure as data, as vectors where it is not too large."""
        vectors = self.folder / Path(name).with_suffix(".svg").name
        small = vectors.is_file() and vectors.stat().st_size <= LARGEST_SVG
        path, kind = (vectors, "svg+xml") if small else (self.folder / name, "png")
        try:
            return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        except OSError:
            return None


def _only_images(inline: Token) -> bool:
    return bool(inline.children) and all(c.type == "image" for c in inline.children or ())


def _cell(token: Token, before: Token, inline_end: Token) -> None:
    """Alignment as a class, since the page's policy knows no style attributes; a row's first cell is its heading."""
    if "right" in str(token.attrs.pop("style", "")):
        token.attrSet("class", "n")
    if token.tag == "th":
        token.attrSet("scope", "col")
    elif before.type == "tr_open":
        token.tag = inline_end.tag = "th"
        token.attrSet("scope", "row")


def _plain(inline: Token) -> str:
    return "".join(c.content for c in inline.children or ()) or inline.content


def _raw(text: str) -> Token:
    """A piece of our own HTML among the tokens; what the text brings never becomes one."""
    return Token("html_block", "", 0, content=text)
