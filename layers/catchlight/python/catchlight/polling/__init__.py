"""Polls providers for the status of tasks."""
