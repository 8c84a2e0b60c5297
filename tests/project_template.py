"""Expands the project's template once for all tests of a process, because it takes as long as ten tests."""

import functools
from pathlib import Path

from local.template.expand import Template, load_template


@functools.cache
def project_template() -> Template:
    """Returns the template as CloudFormation receives it, with the default values of its parameters."""
    return load_template(Path(__file__).parents[1] / "template.yaml", {})
