# An image of Camber with the application of this repository. docs/how-to/deploy-with-containers.md says how to use it.

FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/camber
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && /opt/camber/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/camber/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim
COPY --from=build /opt/camber /opt/camber
WORKDIR /app
COPY pyproject.toml ./
COPY apps apps
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin camber \
    && install --directory --owner=camber --mode=700 /data
ENV PATH=/opt/camber/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CAMBER_HOST=0.0.0.0 \
    CAMBER_DATA=/data
USER 10001
VOLUME /data
EXPOSE 3210 3211
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3210/healthz', timeout=4)"]
CMD ["camber", "serve"]
