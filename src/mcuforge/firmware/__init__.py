"""From a compiled model to a project, a firmware, and what that needs of its board."""
