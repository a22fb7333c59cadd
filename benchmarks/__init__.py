"""Side-by-side benchmarks of the load engine; not part of the package. See README.md here."""
