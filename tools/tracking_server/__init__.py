"""MLflow's server on PostgreSQL and an S3-compatible object store, all three on this machine and in one folder."""
