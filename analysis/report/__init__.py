"""One page about everything that was measured, collected from the stages' folders."""
