"""What every driver stands on: time, bells, gates, news, memory, boxes, logins, settings, tasks."""
