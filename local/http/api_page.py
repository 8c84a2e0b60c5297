"""Writes the reference of the tasks API as one HTML file that loads nothing."""

import json
from importlib.resources import files
from pathlib import Path

import yaml

from local import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "tasks-api.openapi.yaml"
# Powertools includes Swagger UI. The Content Security Policy prevents it from loading other files and sending requests.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{css}</style>
<div id="reference"></div>
<script>{javascript}</script>
<script>
SwaggerUIBundle({{
  dom_id: "#reference", spec: {spec}, supportedSubmitMethods: [], validatorUrl: null, deepLinking: true
}})
</script>
</html>
"""


def write_api_page(folder: Path) -> Path:
    """Writes `tasks-api.html` into a folder and returns its path."""
    assets = files("aws_lambda_powertools") / "event_handler" / "openapi" / "swagger_ui"
    document = yaml.load(DOCUMENT.read_text(encoding="utf-8"), yaml.CSafeLoader)
    page = folder.absolute() / "tasks-api.html"
    text = _PAGE.format(
        title=document["info"]["title"],
        css=(assets / "swagger-ui.min.css").read_text(encoding="utf-8"),
        javascript=(assets / "swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        # A text with `</script>` in the document must not end the script element.
        spec=json.dumps(document).replace("<", "\\u003c"),
    )
    page.write_text(text, encoding="utf-8")
    return page
