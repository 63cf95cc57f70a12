"""Small things every other room needs: cameras, labels, files, images, progress, tasks."""
