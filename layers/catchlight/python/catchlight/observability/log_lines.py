"""Formats log lines."""

import json
from functools import partial

# For Powertools' Logger, whose default escapes nothing above ASCII. Messages of services are logged, and people read
# logs in terminals, which act on C1 controls and reorder text at bidirectional controls.
log_line = partial(json.dumps, default=str, separators=(",", ":"))
