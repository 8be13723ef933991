"""Creates reports from result files, without running an implementation."""
