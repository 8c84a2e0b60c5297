"""Writes docs/task-event.schema.json from the models in catchlight/events.py. Run it when they change."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from catchlight.events import MAX_DETAIL_BYTES, TaskEvent

DOCUMENT = Path(__file__).parent.parent / "docs" / "task-event.schema.json"


class _NothingIsNull(GenerateJsonSchema):
    """Generates schemas without null, because events omit missing values, and without titles, which repeat names."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def document() -> dict[str, Any]:
    """Returns the JSON schema of an event's `detail`."""
    schema = TaskEvent.model_json_schema(mode="validation", schema_generator=_NothingIsNull)
    for definition in (schema, *schema["$defs"].values()):
        definition.pop("title", None)
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": "urn:catchlight:task-event",
        "title": "detail of Catchlight's events",
        "$comment": "Made by scripts/write_task_event_schema.py. A later version may say more, never something else. "
        f"Less than {MAX_DETAIL_BYTES} bytes.",
    }
    return head | schema


def text() -> str:
    """Returns the document as the text of the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes the file and returns exit status 0."""
    DOCUMENT.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
