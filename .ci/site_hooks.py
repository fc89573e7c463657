"""What mkdocs does beside what its plugins do."""

from __future__ import annotations

import re
from typing import Any

# In each notebook's page: it fetches a drawing program for diagrams that our cells do not have.
_MERMAID = re.compile(r'<script type="module">(?:(?!</script>).)*?mermaid.*?</script>', re.DOTALL)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """A notebook's page, without scripts that ask another machine."""
    return _MERMAID.sub("", html) if page.file.src_uri.endswith(".ipynb") else html
