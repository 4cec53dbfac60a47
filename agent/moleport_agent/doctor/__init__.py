"""`moleport doctor`: find out why an agent cannot reach its server, and say what to do about it."""
