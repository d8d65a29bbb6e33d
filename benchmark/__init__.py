"""The harness: fills a grid of cells and reports it. Importing this package imports nothing heavy."""
