"""Verifies callbacks and stores the deliveries that could not be parsed."""
