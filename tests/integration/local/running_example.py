"""The running example stack."""

import json
from pathlib import Path
from typing import Any

import httpx

from local.stack import LocalStack

EXAMPLE = Path(__file__).parent / "example" / "template.yaml"


class Example:
    """The running example stack, its logs, and the notes of its handlers."""

    def __init__(self, stack: LocalStack, state_dir: Path) -> None:
        self.stack = stack
        self.state_dir = state_dir
        self.client = stack.boto3_client
        self.http = httpx.Client(base_url=stack.info["api_url"], trust_env=False, timeout=120)

    def ref(self, logical_id: str) -> str:
        return self.stack.resources[logical_id].ref

    def notes(self, function: str) -> list[Any]:
        """Returns what the handler passed to `note` of layer/notes.py."""
        path = self.state_dir / f"{function}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["what"] for line in lines if line.endswith("}")]

    def log(self, name: str) -> str:
        path = self.state_dir / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""
