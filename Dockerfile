# distribute and execute-engine, each a target of its own, and the hosts of the demo:
# docker build --target execute-engine .
ARG BASE=debian:12.11-slim
# Who the containers run as. Its secrets are files of this user alone, and so it has the number of whoever made them.
ARG UID=10001

FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates tini \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/execute-engine
COPY requirements.lock .
RUN python3 -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        -r requirements.lock

FROM python AS service
ARG UID
RUN apt-get update \
 && apt-get install -y --no-install-recommends git openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid ${UID} --user-group --no-create-home --home-dir /tmp service \
 && install -d -o service -g service /var/lib/execute-engine /srv/files
WORKDIR /opt/execute-engine
COPY --from=build /opt/execute-engine/.venv .venv
COPY sql sql
COPY contract contract
COPY distribute distribute
COPY execute_engine execute_engine
# The shipped configuration, and not the one that lies beside this file: that may hold passwords. The root file system is
# read-only when it runs: what Python would write beside its modules is there already.
RUN mkdir conf \
 && .venv/bin/python -m contract.shipped >conf/server.conf \
 && .venv/bin/python -m compileall -q contract distribute execute_engine
ENV PATH=/opt/execute-engine/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EXECUTE_ENGINE_DISTRIBUTE_HOST=0.0.0.0 \
    EXECUTE_ENGINE_DISTRIBUTE_FILES_DIR=/srv/files \
    EXECUTE_ENGINE_EXEC_ENGINE_FILES_DIR=/srv/files \
    EXECUTE_ENGINE_EXEC_ENGINE_STATE_DIR=/var/lib/execute-engine
USER service
# Reaps what a killed process of a unit leaves, and hands SIGTERM on to the supervisor.
ENTRYPOINT ["tini", "--"]

FROM service AS distribute
EXPOSE 8007
HEALTHCHECK --interval=5s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8007/readyz', timeout=8)"]
CMD ["python", "-m", "distribute"]

FROM service AS execute-engine
VOLUME /var/lib/execute-engine
# Its consumer writes this file in each round of its loop, and only then.
HEALTHCHECK --interval=10s --timeout=10s --start-period=90s --retries=3 \
    CMD ["sh", "-c", "test -n \"$(find /var/lib/execute-engine/progress -newermt '30 seconds ago')\""]
CMD ["python", "-m", "execute_engine"]

FROM python AS demo-host
ARG UID
RUN apt-get update \
 && apt-get install -y --no-install-recommends openssh-server \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && useradd --uid ${UID} --user-group --no-create-home --home-dir /tmp --shell /bin/sh demo
COPY conf/compose/demo-host /usr/local/bin/
COPY conf/compose/sshd_config /etc/demo/
USER demo
ENTRYPOINT ["tini", "--", "demo-host"]
CMD ["healthy"]
