# The image of docker-compose.yml's server, bootstrap and workers. docs/deploy.md says what was tested of it.
FROM python:3.11.16-slim-bookworm AS libraries
COPY requirements.txt /
# Wheels alone, each with its hash: nothing is built, and nothing comes that the lock does not name.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps \
      --only-binary :all: --require-hashes -r /requirements.txt

FROM python:3.11.16-slim-bookworm
# Triton compiles its launchers with it when a model's blocks are compiled for a GPU.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
# A new volume takes owner and mode of the folder that it covers.
RUN groupadd --gid 10001 vidloop \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin vidloop \
 && install -d -o vidloop -g vidloop -m 0750 /srv/store /srv/cache /srv/judge /srv/locks /srv/prefect
COPY --from=libraries /opt/venv /opt/venv
COPY . /opt/vidloop
RUN /opt/venv/bin/python -m compileall -q /opt/vidloop
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/vidloop \
    PYTHONUNBUFFERED=1
WORKDIR /opt/vidloop
USER 10001:10001
CMD ["python", "-m", "flows", "--help"]
