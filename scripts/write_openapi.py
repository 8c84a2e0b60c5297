"""Writes docs/tasks-api.openapi.yaml from the routes and models of the tasks API. Run it when they change."""

from pathlib import Path
from typing import Any

import yaml
from aws_lambda_powertools.event_handler.openapi.models import APIKey, APIKeyIn, Contact, Server, Tag

from catchlight.api.problems import ProblemBody
from catchlight.api.request_models import ImageQuery, LinkQuery, PageQuery, TaskQuery
from functions.serve_tasks_api.app import api

DOCUMENT = Path(__file__).parent.parent / "docs" / "tasks-api.openapi.yaml"
SIGV4 = APIKey(name="Authorization", in_=APIKeyIn.header, description="AWS Signature Version 4, service `execute-api`")
SERVER = Server(
    url="https://{api}.execute-api.{region}.amazonaws.com",
    variables={"api": {"default": "your-api"}, "region": {"default": "us-east-1"}},
)
TAGS = [
    Tag(name="Submissions", description="Requests for images that the stack sends to their provider."),
    Tag(name="Tasks", description="Image tasks, submitted through this API or registered with it."),
    Tag(name="Images", description="Archived images, and bytes in quarantine."),
]
QUERIES: dict[str, type[LinkQuery]] = {"listTasks": PageQuery, "getTask": TaskQuery, "getImage": ImageQuery}

DESCRIPTION = """\
Submit, register, look up and list image tasks, and get their images.

Every request is signed with AWS Signature Version 4 for the service `execute-api`; the caller needs
`execute-api:Invoke` on the route. Errors of API Gateway itself, such as the response to an unsigned request, are
`{"message": "..."}` in application/json. Errors of the tasks API are problem bodies (RFC 9457) in
application/problem+json, which name the next step.

A submission is sent to the provider once. The caller chooses its `Idempotency-Key` (a UUID, or the id of an order) and
repeats the same request with this key until it receives a response: nothing is generated twice. Only the problem
`submission-outcome-unknown` requires a decision by the caller.
"""


def document() -> dict[str, Any]:
    """Returns the OpenAPI document that Powertools generates, corrected where the tasks API behaves differently."""
    model = api.get_openapi_schema(
        title="Catchlight tasks API",
        version="1",
        description=DESCRIPTION,
        contact=Contact(name="The operators of this stack"),
        tags=[*TAGS],
        servers=[SERVER],
        security_schemes={"sigv4": SIGV4},
        security=[{"sigv4": []}],
    )
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    schemas = found["components"]["schemas"]
    schemas["ProblemBody"] = ProblemBody.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    schemas |= schemas["ProblemBody"].pop("$defs")
    for operation in (operation for path in found["paths"].values() for operation in path.values()):
        # The tasks API responds to an invalid request with 400.
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
        for response in operation["responses"].values():
            # Responses without a body have an empty `content`, without which Powertools describes the return value.
            if not response.get("content"):
                del response["content"]
            if problem := response.get("content", {}).get("application/problem+json"):
                # With a schema for each response, code generators would make a class for each operation and status.
                problem["schema"], types = problem["schema"]["allOf"]
                problem["x-problem-types"] = types["properties"]["type"]["enum"]
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query":
                parameter["schema"] = _query_schema(QUERIES[operation["operationId"]], parameter["name"])
            if parameter["name"].lower() == "idempotency-key":
                # Optional in the code, so that the tasks API itself responds to a missing key, with a problem body.
                parameter |= {"name": "Idempotency-Key", "required": True}
    found["paths"] = dict(sorted(found["paths"].items()))
    # Powertools adds its own bodies of validation errors, and the models of query strings; no operation refers to them.
    queries = ("LinkQuery", *(query.__name__ for query in QUERIES.values()))
    for name in ("HTTPValidationError", "ResponseValidationError", "ValidationError", *queries):
        schemas.pop(name, None)
    found["components"]["schemas"] = dict(sorted(schemas.items()))
    cleaned: dict[str, Any] = _without_null(found)
    return cleaned | {"info": found["info"]}


def _query_schema(query: type[LinkQuery], name: str) -> dict[str, Any]:
    """Returns the schema of a query parameter. Powertools' document contains only its type."""
    schema = query.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
    return {key: value for key, value in schema["properties"][name].items() if key != "description"}


def _without_null(schema: Any) -> Any:
    """Returns the schema without titles, which repeat names, and without null, because missing values are omitted."""
    match schema:
        case {"anyOf": [only, {"type": "null"}], **rest}:
            rest.pop("default", None)
            return _without_null({**only, **rest})
        case {"patternProperties": dict(patterns), **rest} if len(patterns) == 1:
            # Code generators do not support patternProperties.
            ((pattern, value),) = patterns.items()
            names = {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
            return _without_null({**names, **rest})
        case dict():
            return {
                name: {key: _without_null(part) for key, part in value.items()}
                if name == "properties"
                else _without_null(value)
                for name, value in schema.items()
                if name != "title"
            }
        case list():
            return [_without_null(part) for part in schema]
        case _:
            return schema


def text() -> str:
    """Returns the document as the text of the file."""
    head = (
        "# Generated by scripts/write_openapi.py. Edit functions/serve_tasks_api/app.py and catchlight/api instead.\n"
    )
    return head + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Dumps YAML without anchors, and with texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)


if __name__ == "__main__":
    DOCUMENT.write_text(text())
