"""The conformance suite, whose transcripts test an implementation by its input and output."""
