"""What is learned from annotations and results: class statistics, domes, view filtering, render quality, reports."""
