"""The server: TensorFlow Serving's REST and gRPC interfaces over a folder of blessed versions."""
