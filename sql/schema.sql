-- The schema for MySQL 8 and MariaDB 10.6 or later, for those who create schemas by hand.
-- distribute creates and upgrades it by itself when its user may; a test holds this file equal to sql/versions.
--
--     mysql -u root -p -e "CREATE DATABASE execute_engine CHARACTER SET utf8mb4"
--     mysql -u root -p execute_engine < sql/schema.sql

CREATE TABLE task (
    `key` BIGINT NOT NULL AUTO_INCREMENT,
    id VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(255) NOT NULL,
    type VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    module VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin,
    args MEDIUMTEXT,
    playbook_name VARCHAR(255),
    playbook_content MEDIUMTEXT,
    timeout_seconds INTEGER NOT NULL,
    options MEDIUMTEXT NOT NULL,
    warnings MEDIUMTEXT NOT NULL,
    request_hash VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    host_count INTEGER NOT NULL,
    unit_count INTEGER NOT NULL,
    submitted_by VARCHAR(160),
    created_at DATETIME(6) NOT NULL,
    started_at DATETIME(6),
    finished_at DATETIME(6),
    rerun_of VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin,
    cancelled_at DATETIME(6),
    projects MEDIUMTEXT,
    needs_files BOOL NOT NULL DEFAULT 0,
    PRIMARY KEY (`key`),
    UNIQUE KEY id (id),
    KEY task_by_state (state, `key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE unit (
    id BIGINT NOT NULL AUTO_INCREMENT,
    task_key BIGINT NOT NULL,
    number INTEGER NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    incarnation VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin,
    host_count INTEGER NOT NULL,
    published_at DATETIME(6),
    begun_at DATETIME(6),
    finished_at DATETIME(6),
    success INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    unreachable INTEGER NOT NULL DEFAULT 0,
    timeout INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    not_started INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    stop_requested BOOL NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY unit_number (task_key, number),
    KEY unit_by_state (state, task_key, id),
    KEY unit_by_incarnation (incarnation, state),
    FOREIGN KEY (task_key) REFERENCES task (`key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE host_result (
    id BIGINT NOT NULL AUTO_INCREMENT,
    task_key BIGINT NOT NULL,
    unit_id BIGINT NOT NULL,
    host VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    status VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    rc INTEGER,
    changed BOOL,
    stdout MEDIUMTEXT,
    stderr MEDIUMTEXT,
    msg MEDIUMTEXT,
    tasks_ok INTEGER,
    tasks_total INTEGER,
    stuck_task VARCHAR(255),
    stage VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin,
    since DATETIME(6),
    blame MEDIUMTEXT,
    stopped_on_host VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin,
    engine VARCHAR(255),
    started_at DATETIME(6),
    finished_at DATETIME(6),
    detail MEDIUMTEXT,
    late BOOL NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY host_once_a_task (task_key, host),
    KEY host_result_by_task (task_key, id),
    KEY host_result_by_unit (unit_id, status),
    KEY host_result_by_status (task_key, status, since),
    KEY host_result_by_host (host, id),
    FOREIGN KEY (task_key) REFERENCES task (`key`),
    FOREIGN KEY (unit_id) REFERENCES unit (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE engine (
    incarnation VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    id VARCHAR(255) NOT NULL,
    host_name VARCHAR(255) NOT NULL,
    version VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    slots INTEGER NOT NULL,
    free_slots INTEGER NOT NULL,
    beat BIGINT NOT NULL DEFAULT 0,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    missing MEDIUMTEXT,
    started_at DATETIME(6) NOT NULL,
    beat_at DATETIME(6) NOT NULL,
    sees_files BOOL NOT NULL DEFAULT 1,
    PRIMARY KEY (incarnation),
    KEY engine_by_state (state, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE leader (
    name VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    beat BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE dispatch_hold (
    name VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    held_by VARCHAR(255) NOT NULL,
    since DATETIME(6) NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE host_key (
    host VARCHAR(253) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    port INTEGER NOT NULL,
    key_type VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `key` VARCHAR(4096) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    first_seen_at DATETIME(6) NOT NULL,
    engine VARCHAR(255) NOT NULL,
    PRIMARY KEY (host, port, key_type)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE project (
    name VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    group_path VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    ref VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    commit_id VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE project_version (
    project VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    commit_id VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    ref VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    files BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    ready_at DATETIME(6) NOT NULL,
    PRIMARY KEY (project, commit_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE clone_job (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    project VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    progress MEDIUMTEXT,
    answer MEDIUMTEXT,
    submitted_by VARCHAR(160) NOT NULL,
    started_at DATETIME(6) NOT NULL,
    finished_at DATETIME(6),
    PRIMARY KEY (id),
    KEY clone_job_by_project (project, started_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE audit (
    id BIGINT NOT NULL AUTO_INCREMENT,
    at DATETIME(6) NOT NULL,
    who VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    address VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    action VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    target VARCHAR(255),
    code INTEGER NOT NULL,
    msg VARCHAR(1000) NOT NULL,
    PRIMARY KEY (id),
    KEY audit_by_who (who, id),
    KEY audit_by_target (target, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    PRIMARY KEY (version_num)
);
INSERT INTO alembic_version VALUES ('0005');
