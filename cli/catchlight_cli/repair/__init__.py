"""Restarts, resends, replays and imports."""
