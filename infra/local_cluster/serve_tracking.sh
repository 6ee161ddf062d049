#!/usr/bin/env bash
# Serves MLflow on its machine's disk: runs in PostgreSQL where it is installed, else in SQLite; artifacts in the bucket.
# Takes from the environment: ADDRESS, PORT, ARTIFACTS (an s3:// URI) and what MLflow needs to open it.
set -euo pipefail

server=$(dirname "$(readlink -f "$(command -v postgres || echo /nowhere/postgres)")")
if [ -x "$server/initdb" ]; then
  as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/mnt/postgres)
  install -d -o postgres -g postgres -m 700 /mnt/postgres
  # Only this machine's processes see the socket's folder, so it needs no password.
  [ -e /mnt/postgres/data/PG_VERSION ] ||
    "${as_postgres[@]}" "$server/initdb" --pgdata=/mnt/postgres/data --auth=trust --encoding=UTF8 >/dev/null
  rm -f /mnt/postgres/data/postmaster.pid
  "${as_postgres[@]}" "$server/postgres" -D /mnt/postgres/data -c listen_addresses= \
    -c unix_socket_directories=/mnt/postgres &
  until "$server/pg_isready" --quiet --host=/mnt/postgres; do sleep 0.2; done
  "$server/psql" --host=/mnt/postgres --username=postgres --quiet --tuples-only \
    --command="SELECT 1 FROM pg_database WHERE datname = 'mlflow'" | grep -q 1 ||
    "$server/createdb" --host=/mnt/postgres --username=postgres mlflow
  store="postgresql+psycopg2://postgres@/mlflow?host=/mnt/postgres"
else
  store=sqlite:////mnt/mlflow.db
fi
# One worker: of several, those that do not answer at once, because the machine is busy, are ended.
exec mlflow server --host 0.0.0.0 --port "$PORT" --workers 1 --allowed-hosts "$ADDRESS:$PORT" \
  --backend-store-uri "$store" --artifacts-destination "$ARTIFACTS"
