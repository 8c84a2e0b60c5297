"""Gives tests access to the running example stack."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from local.stack import LocalStack

EXAMPLE = Path(__file__).parent / "example" / "template.yaml"

# A busy machine may be slow.
PATIENCE_SECONDS = 300


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits until the condition is true and returns its value. No test depends on when that is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return value


class Example:
    """The example stack and the notes of its handlers."""

    def __init__(self, stack: LocalStack, state_dir: Path) -> None:
        self.stack = stack
        self.state_dir = state_dir
        self.client = stack.boto3_client
        self.http = httpx.Client(base_url=stack.info["api_url"], trust_env=False, timeout=120)

    def ref(self, logical_id: str) -> str:
        return self.stack.resources[logical_id].ref

    def notes(self, function: str) -> list[Any]:
        path = self.state_dir / f"{function}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["what"] for line in lines if line.endswith("}")]

    def log(self, name: str) -> str:
        path = self.state_dir / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""
