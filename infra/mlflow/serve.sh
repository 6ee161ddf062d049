#!/bin/sh
# Starts the tracking server with secrets that lie in files, as Compose and Kubernetes mount them.
# Files in /run/secrets: mlflow-database-password, s3-access-key, s3-secret-key.
# From the environment: DATABASE_HOST, ARTIFACTS (an s3:// URI), ALLOWED_HOSTS, and MLFLOW_S3_ENDPOINT_URL where the
# bucket is not Amazon's.
set -eu
secrets=/run/secrets
AWS_ACCESS_KEY_ID=$(cat "$secrets/s3-access-key")
AWS_SECRET_ACCESS_KEY=$(cat "$secrets/s3-secret-key")
PGPASSWORD=$(cat "$secrets/mlflow-database-password") # libpq reads it, so that no command line shows it
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY PGPASSWORD
[ -n "${MLFLOW_S3_ENDPOINT_URL:-}" ] || unset MLFLOW_S3_ENDPOINT_URL
# On a busy machine a worker that does not answer at once is not dead.
exec mlflow server --uvicorn-opts "--timeout-worker-healthcheck 60" \
  --host 0.0.0.0 --port 5000 --allowed-hosts "$ALLOWED_HOSTS" \
  --backend-store-uri "postgresql+psycopg2://mlflow@$DATABASE_HOST:5432/mlflow" \
  --artifacts-destination "$ARTIFACTS"
