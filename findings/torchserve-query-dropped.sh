#!/usr/bin/env bash
# TorchServe 0.12.0: what stands behind the ? of /predictions/NAME never reaches the handler, and nobody says so.
#
# A good guess: `/predictions/echo?score_thr=.3` with a file as its body gives the handler a row with `body` and `score_thr`, as the
# fields of a form arrive by their names, and as the frontend's code for parameters of an address promises.
# What happens: the row has `body` alone, and the answer is 200: a threshold that a client asks for is dropped without a word. The same
# field in a form, or in JSON, arrives.
# Why: InferenceRequestHandler parses the address, but hands `null` for the decoder of its parameters to `predict` for /predictions;
# only /invocations passes it on.
# Needs Java 17 on the path. Seen with OpenJDK 17.0.15, Python 3.11.
set -euo pipefail
dir=$(mktemp -d)
trap '"$dir/env/bin/torchserve" --stop >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q torch==2.14.1 torchserve==0.12.0 torch-model-archiver==0.12.0 psutil pyyaml pillow
cd "$dir"
cat > echo_handler.py <<'PY'
def handle(data, context): return None if data is None else [{key:str(type(value).__name__) for key,value in row.items()} for row in data]
PY
cat > ts.properties <<'TXT'
inference_address=http://127.0.0.1:28480
management_address=http://127.0.0.1:28481
metrics_address=http://127.0.0.1:28482
grpc_inference_port=28483
grpc_management_port=28484
default_workers_per_model=1
TXT
export PATH="$dir/env/bin:$PATH" TEMP="$dir"
torch-model-archiver --model-name echo --version 1.0 --handler echo_handler.py --export-path . >/dev/null 2>&1
torchserve --start --model-store . --models echo=echo.mar --ts-config ts.properties --disable-token-auth >log 2>&1
python - <<'PY'
import json, time
from urllib.error import URLError
from urllib.request import Request, urlopen

def ask(path, body, kind, patience=120):
    "The keys of the row that the handler saw"
    for _ in range(patience):
        try:
            with urlopen(Request(f'http://127.0.0.1:28480{path}', body, {'Content-Type':kind}), timeout=60) as reply:
                return sorted(json.load(reply))
        except (URLError, OSError): time.sleep(1)               # it is still starting
    raise SystemExit('TorchServe did not start')

query = ask('/predictions/echo?score_thr=.3', b'bytes of a file', 'application/octet-stream')
form = ask('/predictions/echo', b'data=some&score_thr=.3', 'application/x-www-form-urlencoded')
elsewhere = ask('/invocations?model_name=echo&score_thr=.3', b'bytes of a file', 'application/octet-stream')
print(f'torchserve 0.12.0: the handler sees {query} of an address with ?score_thr=.3, {form} of a form, {elsewhere} of /invocations')
assert form==['data','score_thr'], 'a form no longer arrives by its fields'
assert query==['body'], 'the query arrives: the finding is out of date'
assert 'score_thr' in elsewhere, '/invocations drops it too'
PY
