"""Complete tiny option files, absurd values for them, and processes to try those in: the parts of fuzz_options.py."""
