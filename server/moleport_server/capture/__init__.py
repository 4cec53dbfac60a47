"""What passed through a tunnel: ring buffers in memory, masking, a background writer, replay."""
