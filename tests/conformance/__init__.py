"""The conformance suite: transcripts that test any implementation by its input and output."""
