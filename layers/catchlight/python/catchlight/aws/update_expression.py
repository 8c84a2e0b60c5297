"""Builds DynamoDB's UpdateExpression clause by clause."""

from typing import Any

from catchlight.aws.attribute_values import to_attribute

# Converts a path such as `images[0].url` into a valid name of a placeholder.
_AS_PLACEHOLDER = str.maketrans({"[": "_", "]": None, ".": "_"})


class UpdateExpression:
    """An update of one item. All names are aliased: `status` is a reserved word, other names may become reserved."""

    def __init__(self) -> None:
        self._clauses: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def set(self, path: str, value: Any) -> None:
        """Sets an attribute, or an element of a list: `images[0]`."""
        self._clause("SET", f"{self._path(path)} = {self._value(path, value)}")

    def set_once(self, path: str, value: Any) -> None:
        """Sets an attribute unless the item has it already."""
        name = self._path(path)
        self._clause("SET", f"{name} = if_not_exists({name}, {self._value(path, value)})")

    def append(self, path: str, value: Any) -> None:
        """Appends a value to a list; creates the list if it is missing."""
        name = self._path(path)
        new, empty = self._value(path, [value]), self._value("empty", [])
        self._clause("SET", f"{name} = list_append(if_not_exists({name}, {empty}), {new})")

    def add(self, path: str, value: int) -> None:
        """Adds to a number; a missing attribute counts as 0."""
        self._clause("ADD", f"{self._path(path)} {self._value(path, value)}")

    def remove(self, path: str) -> None:
        """Removes an attribute."""
        self._clause("REMOVE", self._path(path))

    def equals(self, path: str, value: Any) -> str:
        """Returns the condition that a path, such as `images[0].url`, has this value before the update.

        With None, the condition is that the path does not exist.
        """
        name = self._path(path)
        return f"attribute_not_exists({name})" if value is None else f"{name} = {self._value(f'{path}_before', value)}"

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments for `update_item`."""
        return {
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in self._clauses.items()),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }

    def _clause(self, verb: str, clause: str) -> None:
        self._clauses.setdefault(verb, []).append(clause)

    def _path(self, path: str) -> str:
        parts = []
        for part in path.split("."):
            name, bracket, rest = part.partition("[")
            self._names[f"#{name}"] = name
            parts.append(f"#{name}{bracket}{rest}")
        return ".".join(parts)

    def _value(self, path: str, value: Any) -> str:
        placeholder = f":{path.translate(_AS_PLACEHOLDER)}"
        self._values[placeholder] = to_attribute(value)
        return placeholder
