#!/bin/sh
# Make the role and the database of Camber. The image of PostgreSQL runs this once, when its data folder is empty.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
    --set=password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE camber LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE DATABASE camber OWNER camber TEMPLATE template0 ENCODING 'UTF8';
REVOKE CONNECT, TEMPORARY ON DATABASE camber FROM PUBLIC;
SQL
