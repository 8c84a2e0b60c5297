"""Redrives and imports tasks, republishes events, and replays rejected deliveries."""
