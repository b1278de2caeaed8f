"""What runs on a box: programs, how they travel there, and what they say."""
