"""The hoody-tunnel family: our own agent (`moleport.1`) and stock clients of both generations."""
