"""Provides CloudFormation's schema of a resource type, from the data of cfn-lint."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from local.account import REGION

# The package is found and not imported: the import takes five seconds.
_PACKAGE = find_spec("cfnlint")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
_SCHEMAS = Path(_PACKAGE.origin).parent / "data" / "schemas"


@cache
def _files() -> dict[str, str]:
    """Returns the file name of each type's schema, without its suffix."""
    found: dict[str, str] = json.loads((_SCHEMAS / "providers" / f"{REGION}.json").read_text())
    return found


@cache
def resource_schema(type_name: str) -> dict[str, Any]:
    """Returns the schema of a resource type."""
    found: dict[str, Any] = json.loads((_SCHEMAS / "resources" / f"{_files()[type_name]}.json").read_text())
    return found
