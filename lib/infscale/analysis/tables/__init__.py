"""From the rows of a run to the tables that figures and reports are drawn from."""
