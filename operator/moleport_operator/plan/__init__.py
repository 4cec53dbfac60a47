"""What to do next, from what is seen now: pure functions without I/O, clocks or randomness."""
