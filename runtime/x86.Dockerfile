# edgegeo on x86-64, the processor does the work.
#   edgegeo wheelhouse -o wheelhouse --platform x86_64 --python 3.11 --glibc 2.36 --extras cpu,serve
#   docker build -f runtime/x86.Dockerfile -t edgegeo .
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN --mount=type=bind,source=wheelhouse,target=/wheels PYTHON=python3.11 sh /wheels/install.sh /opt/edgegeo

# A user without rights; the root file system may be read-only (docker run --read-only --tmpfs /tmp).
RUN groupadd --gid 10001 edgegeo && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data edgegeo
USER 10001:10001
WORKDIR /data
ENV EDGEGEO_HOME=/data EDGEGEO_HOST=0.0.0.0 EDGEGEO_PORT=8080 EDGEGEO_LOG_FORMAT=json \
    PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready: every role has answered. A large bundle on a slow card takes minutes to get there.
HEALTHCHECK --interval=30s --timeout=6s --start-period=300s --retries=3 \
    CMD ["/opt/edgegeo/bin/python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['EDGEGEO_PORT'] + '/health/ready', timeout=5)"]
ENTRYPOINT ["/opt/edgegeo/bin/edgegeo"]
CMD ["serve", "--bundle", "/data/bundle", "--gallery", "/data/gallery", "--api-key-file", "/run/secrets/edgegeo_api_key", "--drain", "25"]
