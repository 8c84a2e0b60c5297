"""Reads and checks the state of a stack and of its tasks."""
