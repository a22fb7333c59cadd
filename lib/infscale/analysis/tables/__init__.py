"""From the rows of a run to the tables that figures and reports are made from."""

from infscale.analysis.tables.run_tables import Tables, load_tables, save_tables, tabulate

__all__ = ["Tables", "load_tables", "save_tables", "tabulate"]
