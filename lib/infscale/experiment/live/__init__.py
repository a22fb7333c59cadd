"""What is seen of a load while it runs: in JupyterLab, in a terminal, and in lines where nobody looks."""
