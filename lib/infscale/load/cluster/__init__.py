"""A load from many processes and machines: Dask starts and reaches the workers, each of which runs the load engine."""
