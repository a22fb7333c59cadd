"""Programs of ours that a deployment starts; they import nothing of deployment."""
