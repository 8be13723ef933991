"""A run of the suite with pytest: collection, results and the verdict."""
