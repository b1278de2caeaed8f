"""The page for people who would rather look than read: ``serve`` has the server, the other files what it serves."""
