"""The transcript format with its reader and writer, and the specification's requirements."""
