"""Kafka in three brokers: one is killed, all are killed, and they come back empty. What was accepted goes out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from tests.daemons import Backend, Services
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.process import wait_for


@pytest.mark.parametrize("backend", ["mariadb alone"], indirect=True)
def test_accepted_tasks_go_out_whatever_happens_to_the_brokers(
    backend: Backend, fleet: Fleet, server_directory: Path
) -> None:
    cluster = KafkaCluster(server_directory)
    cluster.start(3)
    services = Services(replace(backend, kafka=cluster.bootstrap, topic="units"))
    try:
        services.start(engines=2, Kafka_Cluster={"REPLICATION": 3, "PARTITIONS": 6})
        load = [services.submit_adhoc(fleet.hosts(count=90), "sleep 1", unit_hosts=5) for _ in range(2)]
        wait_for("some results", lambda: services.task(load[0])["counts"]["success"] > 5)
        cluster.kill(1)
        for task_id in load:
            assert services.wait_task(task_id)["counts"]["success"] == 90

        cluster.kill(2)
        cluster.kill(3)
        during = services.submit_adhoc(fleet.hosts(count=20), "echo hi", unit_hosts=5)
        cluster.forget_all()
        cluster.start(3)
        after = services.submit_adhoc(fleet.hosts(count=20), "echo hi", unit_hosts=5)
        for task_id in (during, after):
            assert services.wait_task(task_id)["counts"]["success"] == 20
    except BaseException:
        print(services.logs())
        raise
    finally:
        services.stop()
        cluster.stop()
        shutil.rmtree(server_directory, ignore_errors=True)


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_a_topic_that_takes_no_message_and_one_that_grows_keep_no_task(services: Services, fleet: Fleet) -> None:
    """Where a message cannot be had, an engine with room looks into the database."""
    backend = services.backend
    admin = KafkaAdminClient(bootstrap_servers=backend.kafka)
    try:
        admin.create_topics([NewTopic(backend.topic, 24, 1, topic_configs={"max.message.bytes": "10"})])
        services.start()
        refused = services.submit_adhoc(fleet.hosts(count=3), "echo hi")
        assert services.wait_task(refused)["counts"]["success"] == 3
        admin.create_partitions({backend.topic: NewPartitions(30)})
        grown = services.submit_adhoc(fleet.hosts(count=60), "echo hi", unit_hosts=2)
        assert services.wait_task(grown)["counts"]["success"] == 60
    finally:
        admin.close()
