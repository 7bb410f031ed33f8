#!/bin/sh
exec mariadb-admin --socket=/run/mysqld/mysqld.sock ping
