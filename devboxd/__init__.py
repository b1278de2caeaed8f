"""devboxd: the daemon that holds your boxes. Importing this package must stay cheap."""

__version__ = "0.1.0"
