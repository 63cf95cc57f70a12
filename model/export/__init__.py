"""What leaves the project: a field as mesh, as points, and on PeRFception's grid."""
