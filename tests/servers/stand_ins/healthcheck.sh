#!/bin/sh
MYSQL_PWD=$(cat "$MARIADB_ROOT_PASSWORD_FILE") exec mariadb-admin -u root --socket=/run/mysqld/mysqld.sock ping
