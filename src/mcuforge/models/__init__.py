"""Models: where they come from, what is in them, and what they answer."""
