"""Zabbix set up for us: templates, host, dashboard. Values are sent by contract/zabbix.py."""
