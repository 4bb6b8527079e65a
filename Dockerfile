# The image of replicas and API servers:
#
#   docker build --tag anyserve:0.1.0 .
#   docker run --rm --publish 8000:8000 --shm-size 640m anyserve:0.1.0
#   docker run --rm --publish 8080:8080 anyserve:0.1.0 api-server --host 0.0.0.0
#
# An app of one's own is an image on top of it: FROM anyserve:0.1.0, COPY the app, RUN pip install what it needs, and
# CMD ["serve", "app:app", "--host", "0.0.0.0"].

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/maturin && /opt/maturin/bin/pip install --no-cache-dir 'maturin>=1.9,<2'
WORKDIR /src
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE ./
COPY crates crates
COPY proto proto
COPY python python
RUN /opt/maturin/bin/maturin build --release --locked --strip --out /wheels

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -rf /wheels \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin anyserve
WORKDIR /app
COPY examples examples
# Nothing is written beside the code: the file system may be read-only.
ENV PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes sees that it is not root.
USER 10001
EXPOSE 8000 8080
ENTRYPOINT ["anyserve"]
CMD ["serve", "examples.basic.app:app", "--host", "0.0.0.0", "--port", "8000"]
