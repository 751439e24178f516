"""What turns the inputs of a task into tokens ``(B, N, d)``."""
