"""One HTML file from the records of a run; a table for the terminal and a card for the notebook."""

from prosect.report.notebook import run_card
from prosect.report.page import build
from prosect.report.terminal import summary

__all__ = ["build", "run_card", "summary"]
