"""Plans: what measured service times say of deployments that were not measured, and how well they say it."""
