"""Redrives tasks, resends events, replays rejected deliveries and imports tasks."""
