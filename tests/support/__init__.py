"""SMTP clients, upstream servers and proxy processes, for all tests but those of the suite."""
