"""Reports from result files. This package does not run any implementation."""
