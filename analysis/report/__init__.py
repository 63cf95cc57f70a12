"""The report: one page of all results, collected from the stages' folders."""
