"""What neurons and paths see: views into a network by passes of their own."""
