"""Facts and rules of tunnels, tokens and visitors: pure, without clock, I/O or randomness."""
