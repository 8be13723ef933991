"""Runs the suite with pytest: collection, results and the verdict."""
