"""The papers' tables: their definitions, the runs behind them, and the pages that show them."""
