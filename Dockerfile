# Two images, built by docker-compose.yml:
#   worker   the program itself: worker, topics, stand-in provider, every command
#   triton   NVIDIA's server, with what the model in inference/model_repository needs

FROM nvcr.io/nvidia/tritonserver:26.06-py3 AS triton

# The same pins as in development, numpy 1 among them: what was tested is what runs. Nothing else is pulled in.
COPY inference/triton-requirements.txt inference/model-requirements.txt /opt/waybill/
RUN PIP_BREAK_SYSTEM_PACKAGES=1 pip install --no-cache-dir --no-deps --require-hashes \
        -r /opt/waybill/triton-requirements.txt -r /opt/waybill/model-requirements.txt
USER triton-server


FROM python:3.11.14-slim-bookworm AS worker

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/opt/waybill
WORKDIR /opt/waybill

COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

# The program runs from its sources; `waybill` on the PATH is the same as `python -m waybill`.
COPY evidence evidence
COPY policy policy
COPY inference inference
COPY streams streams
COPY queries queries
COPY dashboards dashboards
COPY waybill waybill
COPY config config
RUN printf '#!/bin/sh\nexec python -m waybill "$@"\n' > /usr/local/bin/waybill \
    && chmod 755 /usr/local/bin/waybill \
    && useradd --system --uid 10001 --home-dir /var/lib/waybill waybill \
    && install -d -o waybill -g waybill -m 750 /var/lib/waybill \
    && install -d -o waybill -g waybill -m 700 /var/lib/waybill-vault

USER waybill
ENTRYPOINT ["waybill"]
CMD ["--help"]
