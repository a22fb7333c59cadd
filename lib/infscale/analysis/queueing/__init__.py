"""What theory says of queues and of replicas: models that are fitted to measured points."""
