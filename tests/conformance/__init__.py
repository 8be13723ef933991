"""The conformance suite: transcripts that judge any implementation by what crosses its borders."""
