"""Formats log lines."""

import json
from functools import partial

# A JSON serializer for Powertools' Logger that escapes all non-ASCII characters, which the default one does not. Logs
# contain messages of services, and terminals execute C1 controls and reorder text at bidirectional controls.
log_line = partial(json.dumps, default=str, separators=(",", ":"))
