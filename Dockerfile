# The service of docs/serving.md. Build it with `docker build -t tfvae .`, and run it with
# `docker run -p 8000:8000 -v "$PWD/runs:/runs:ro" tfvae`.
FROM python:3.13.9-slim-bookworm

# implicit is linked with the system's OpenMP, which the slim image lacks.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml README.md LICENSE requirements.txt ./
COPY tfvae ./tfvae
# requirements.txt also pins what tests and notebooks need: as constraints it adds none of that.
RUN pip install --no-cache-dir --constraint requirements.txt '.[serve]' \
    && useradd --create-home --uid 10001 tfvae
USER 10001

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["tfvae"]
CMD ["serve", "/runs/current", "--host", "0.0.0.0"]
