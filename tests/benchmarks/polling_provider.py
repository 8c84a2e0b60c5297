"""Runs a provider in its own process: every response is delayed, and all requests are processed concurrently.

    python -m tests.benchmarks.polling_provider SECONDS

Prints its port. Responds to tests.benchmarks.polling in the format of kie's records and of Ace Data's batches.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Responds to the requests of one connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            lengths = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")]
            request = json.loads(await reader.readexactly(int(lengths[0]))) if lengths else {}
            await asyncio.sleep(seconds)
            content = json.dumps(_batch(request) if method == "POST" else _record(target)).encode()
            length = f"content-length: {len(content)}\r\n"
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}\r\n".encode() + content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _record(target: str) -> dict[str, object]:
    (task,) = parse_qs(urlsplit(target).query)["taskId"]
    response = {"resultImageUrl": f"https://tempfile.aiquickdraw.com/r/{task}.png"}
    return {"code": 200, "msg": "success", "data": {"taskId": task, "successFlag": 1, "response": response}}


def _batch(request: dict[str, list[str]]) -> dict[str, object]:
    images = [{"image_url": "https://platform.cdn.acedata.cloud/flux/1.png"}]
    response = {"success": True, "data": images}
    return {"items": [{"id": task, "finished_at": 1767658625.0, "response": response} for task in request["ids"]]}


async def main() -> None:
    """Serves until the process is terminated."""
    seconds = float(sys.argv[1])
    server = await asyncio.start_server(
        lambda reader, writer: respond(reader, writer, seconds), "127.0.0.1", 0, backlog=1000
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
