"""Reads the settings of `sam deploy` in a folder from samconfig.toml, samconfig.yaml or samconfig.yml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catchlight.client.errors import UsageError

# SAM uses the first of these that exists. SAM has no environment variable that selects another file or environment.
FILE_NAMES = ("samconfig.toml", "samconfig.yaml", "samconfig.yml")
ENVIRONMENT = "default"  # SAM's default, without --config-env
# In ascending precedence: a command's own section overrides the global one.
_COMMANDS = ("global", "deploy")


@dataclass(frozen=True)
class DeploySettings:
    """The name, region and profile of the stack that `sam deploy` deploys. Each is None if the file does not set it."""

    file_name: str
    stack_name: str | None
    region: str | None
    profile: str | None


def read_deploy_settings(folder: Path) -> DeploySettings | None:
    """Reads the settings of `sam deploy` in this folder. Returns None if the folder has no configuration file.

    Raises:
        UsageError: the file cannot be read. SAM ignores some unreadable files; here, this could select another stack
            than the file's.
    """
    for name in FILE_NAMES:
        path = folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError as exc:
            if path.is_symlink():  # a link whose target is missing: the folder does have this file
                raise _unreadable(path, exc) from exc
            continue
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        try:
            return _settings(path.name, _document(path, content))
        except ValueError as exc:
            raise _unreadable(path, exc) from exc
    return None


def _unreadable(path: Path, exc: Exception) -> UsageError:
    reason = exc.strerror if isinstance(exc, OSError) else exc
    return UsageError(
        f"{path} cannot be read: {reason}. Nothing was sent to AWS, because this file selects the stack. Correct it "
        "(`sam validate` checks it as well), or use the local stack of `make up` with --local."
    )


def _document(path: Path, content: bytes) -> Any:
    text = content.decode("utf-8")
    if path.suffix == ".toml":
        if text.startswith("\ufeff"):  # SAM refuses it as well
            raise ValueError("it starts with a byte order mark; save it as UTF-8 without one")
        return tomllib.loads(text)
    # The parser that SAM uses. Imported here because few projects use YAML, and the import would slow all commands.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc


def _settings(file_name: str, document: Any) -> DeploySettings:
    parameters: dict[str, Any] = {}
    for command in _COMMANDS:
        parameters |= _table(document, ENVIRONMENT, command, "parameters")
    found = {name: parameters.get(name, "") for name in ("stack_name", "region", "profile")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, but must be a quoted string")
    return DeploySettings(file_name, **{name: value or None for name, value in found.items()})


def _table(document: Any, *keys: str) -> Mapping[str, Any]:
    """Returns the table at this path of keys; an empty one if a key is missing."""
    for depth in range(len(keys) + 1):
        if not isinstance(document, Mapping):
            raise ValueError(f"{'.'.join(keys[:depth]) or 'the document'} is not a table")
        if depth < len(keys):
            document = document.get(keys[depth], {})
    table: Mapping[str, Any] = document
    return table
