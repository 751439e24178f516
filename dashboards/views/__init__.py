"""What the pages show, as plain data: each function reads a store and knows nothing of HTTP."""
