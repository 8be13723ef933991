"""The Debian package on a clean system: installed, used, upgraded under load, purged."""
