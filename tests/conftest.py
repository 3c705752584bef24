"""Every run draws the same examples; with ``--hypothesis-profile=explore`` it draws new ones."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("repeatable")
