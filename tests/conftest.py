"""Every run of the tests draws the same examples; ``--hypothesis-profile=explore`` draws new ones."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("repeatable")
