"""The page that is made from the raw data: tables, plots and what the numbers say."""
