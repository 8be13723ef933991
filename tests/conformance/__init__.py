"""The conformance suite: transcripts that test an implementation through its input and output."""
