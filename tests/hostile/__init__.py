"""What a box, a gateway or a far end may do to the daemon: fill memory, take time. All of it bounded."""
