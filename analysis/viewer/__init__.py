"""A scene in the browser: field, mesh, cameras, views, and a network's prediction, with viser."""
