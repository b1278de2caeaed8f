"""EC2: a strict model on a given clock, and the query protocol over it."""
