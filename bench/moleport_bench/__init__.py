"""moleport beside its peers, measured the same way on one machine; `make bench` runs it."""
