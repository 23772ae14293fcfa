"""Links notebooks to Colab where the address of the repository is known.

A line `<!-- colab NAME -->` becomes a link that opens examples/notebooks/NAME.ipynb in Colab.
GitHub sets the address, GITHUB_REPOSITORY, in its workflows. Elsewhere the line is left out.
"""

import os
import re
from typing import Any

MARK = re.compile(r"<!-- colab (\w+) -->")
ADDRESS = "https://colab.research.google.com/github/{}/blob/main/examples/notebooks/{}.ipynb"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the page with links in place of the marks."""
    return MARK.sub(lambda match: link(match[1]), markdown)


def link(name: str) -> str:
    """Returns the link to a notebook, or "" where the address of the repository is not known."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if not repository:
        return ""
    return f"[Open the notebook in Colab]({ADDRESS.format(repository, name)})."
