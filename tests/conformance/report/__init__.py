"""Reports from result files; no implementation is run here."""
