"""The papers' tables: what they are made of, the runs behind them, and the pages that show them."""
