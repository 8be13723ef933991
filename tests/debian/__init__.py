"""Tests of the README's commands and of the Debian package on a clean Debian system."""
