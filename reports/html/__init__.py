"""The report as one HTML file: the text of report.md, figures inside, sortable tables, and a viewer of generations.

Model output is hostile text. It reaches the page through markdown without HTML, or as JSON that the page's script shows
as text; a content policy forbids any request and any script but the page's own. Nothing here draws or loads torch.
"""

from reports.html.page import write
from reports.html.tokens import ModelFolder

__all__ = ["ModelFolder", "write"]
