"""Models on the TensorFlow runtime: loading, batching and running them."""
