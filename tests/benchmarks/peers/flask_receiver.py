"""The Flask receiver from the providers' documentation, on a free port, which also reports its CPU time.

    python flask_receiver.py [DATABASE]

With a database it also stores each callback once, in SQLite; the documented version stores nothing. Images of failed
tasks are not downloaded.
"""

# ruff: noqa: T201 # as in the documentation

import sqlite3
import sys
import time
from typing import Any

from flask import Flask, jsonify, request
from werkzeug.serving import make_server

app = Flask(__name__)
database = sqlite3.connect(sys.argv[1], check_same_thread=False) if len(sys.argv) > 1 else None
if database:
    database.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, code INTEGER, message TEXT)")


@app.route("/flux-image-callback", methods=["POST"])
def handle_callback() -> Any:
    """Handles a callback as in the documentation, without the download, and with three lines that store it."""
    data = request.json
    assert data is not None

    code = data.get("code")
    msg = data.get("msg")
    callback_data = data.get("data", {})
    task_id = callback_data.get("taskId")

    print("Received Flux image generation callback:")
    print(f"Task ID: {task_id}")
    print(f"Status: {code}, Message: {msg}")
    if database:
        with database:
            database.execute("INSERT OR IGNORE INTO tasks VALUES (?, ?, ?)", (task_id, code, msg))

    print(f"Flux image generation failed: {msg}")
    if code == 400:
        print("Content policy violation - please adjust prompt")
    elif code == 500:
        print("Internal error - please try again later")
    elif code == 501:
        print("Generation task failed - may need to adjust parameters")

    return jsonify({"status": "received"}), 200


@app.route("/cpu")
def cpu() -> Any:
    """Returns the CPU seconds used so far."""
    return jsonify(time.process_time())


if __name__ == "__main__":
    # Equivalent to app.run(), but prints the port.
    server = make_server("127.0.0.1", 0, app, threaded=True)
    sys.stderr.write(f"{server.server_port}\n")
    sys.stderr.flush()
    server.serve_forever()
