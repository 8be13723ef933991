"""Reports of the conformance suite: everything here is read from result files, nothing is run."""
