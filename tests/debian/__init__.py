"""A clean Debian: the README followed to the letter; the package from installation to purge."""
