"""Models on the TensorFlow runtime: loading, batching, running."""
