"""The bridge: both ends of it, as one state machine without I/O, in the Python that old boxes have."""
