"""A run of the suite: pytest, results and the verdict."""
