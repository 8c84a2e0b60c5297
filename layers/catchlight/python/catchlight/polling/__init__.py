"""Asks providers for the status of tasks."""
