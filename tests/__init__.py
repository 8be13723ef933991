"""All that judges: this checkout's units, any implementation's behaviour, real servers."""
