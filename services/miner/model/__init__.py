"""From a pin to a file that may be loaded: find, check, structure, hardware, vocabulary, chat template."""
