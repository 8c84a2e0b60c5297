"""Runs Lambda functions on one machine: sandboxes, the Runtime API, logs."""
