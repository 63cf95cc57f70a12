"""Small things every other room needs: cameras, labels, files, images, progress, tasks."""

from utils.cores import share_machine

share_machine()
