"""Features of randomly initialised networks, and the kernel they are a sample of."""
