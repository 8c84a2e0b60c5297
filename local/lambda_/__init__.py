"""Lambda on one machine: sandboxes, the Runtime API, logs."""
