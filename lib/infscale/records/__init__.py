"""What is stored: samples, manifests, verdicts."""
