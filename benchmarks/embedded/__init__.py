"""What infscale-tfserving costs by itself."""
