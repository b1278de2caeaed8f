"""The commands, grouped by subject. Each module has ``add_to(app)``."""
