"""Redrives and imports tasks, sends task events again, and replays kept deliveries."""
