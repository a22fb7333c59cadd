"""Server programs of ours, which deployments and the load engine's checks start; they import nothing of deployment."""
