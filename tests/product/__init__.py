"""Builds the suite's wheel and image, and runs its action on a clean machine."""
