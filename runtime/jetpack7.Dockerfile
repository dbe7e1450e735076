# edgegeo on a Jetson with JetPack 7 (Thor; Orin from 7.2 on), the GPU does the work: CUDA 13 as on servers.
#   edgegeo wheelhouse -o wheelhouse --platform aarch64 --python 3.12 --glibc 2.39 --extras gpu,serve
#   docker build -f runtime/jetpack7.Dockerfile -t edgegeo .
ARG BASE=nvcr.io/nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3.12 python3.12-venv && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,source=wheelhouse,target=/wheels sh /wheels/install.sh /opt/edgegeo

# A user without rights; the root file system may be read-only (docker run --read-only --tmpfs /tmp).
RUN groupadd --gid 10001 edgegeo && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data edgegeo
USER 10001:10001
WORKDIR /data
ENV EDGEGEO_HOME=/data EDGEGEO_HOST=0.0.0.0 EDGEGEO_PORT=8080 EDGEGEO_LOG_FORMAT=json EDGEGEO_PROVIDER=cuda \
    PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready: every role has answered. A large bundle on a slow card takes minutes to get there.
HEALTHCHECK --interval=30s --timeout=6s --start-period=300s --retries=3 \
    CMD ["/opt/edgegeo/bin/python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['EDGEGEO_PORT'] + '/health/ready', timeout=5)"]
ENTRYPOINT ["/opt/edgegeo/bin/edgegeo"]
CMD ["serve", "--bundle", "/data/bundle", "--gallery", "/data/gallery", "--api-key-file", "/run/secrets/edgegeo_api_key", "--drain", "25"]
