"""Reports from result files. No implementation is run here."""
