"""evaluate.py: whose set it is, how it is stored, who judges it, and what stands beside it."""
