# edgegeo on a Jetson with JetPack 6 (Orin), the GPU does the work. NVIDIA's onnxruntime-gpu wheel for JetPack 6 lies in ./nvidia.
#   edgegeo wheelhouse -o wheelhouse --platform aarch64 --python 3.10 --extras gpu,serve --find-links nvidia
#   docker build -f runtime/jetpack6.Dockerfile -t edgegeo .
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3.10 python3.10-venv && rm -rf /var/lib/apt/lists/*
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
