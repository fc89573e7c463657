"""What a network does and would do: pure functions, and pictures that return a Figure."""
