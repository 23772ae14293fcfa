r"""Sets equations as MathML when the site is built, so that pages need no script for them.

Markdown holds LaTeX between dollar signs. The extension pymdownx.arithmatex marks it in the HTML;
this hook replaces it. `\tag{13}` at the end of an equation gives its number.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MARKED = re.compile(
    r'<(?P<element>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=element)>',
    re.DOTALL,
)
_TAG = re.compile(r"\\tag\{(.*?)\}\s*$")


def on_page_content(content: str, **_: Any) -> str:
    """Returns the HTML of a page with MathML in place of LaTeX."""
    return _MARKED.sub(_mathml, content)


def _mathml(found: re.Match) -> str:
    latex = html.unescape(found["latex"]).strip()
    if found["element"] == "span":
        return convert(latex)
    number = _TAG.search(latex)
    equation = convert(_TAG.sub("", latex), display="block")
    tag = f'<span class="equation-number">({number[1]})</span>' if number else ""
    return f'<div class="equation"><span class="formula">{equation}</span>{tag}</div>'
