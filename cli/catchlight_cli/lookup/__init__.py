"""Finds the task that a command's argument names."""
