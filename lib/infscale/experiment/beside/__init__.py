"""What is measured beside the trials of a design: the anchor of all runs, load tools on known servers, audits."""
