#!/usr/bin/env bash
# Writes random secrets for compose.yaml into the given folder (by default cluster/secrets); existing secrets stay.
set -euo pipefail
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

# Containers of other users must read these files. So only the folder's mode keeps other users of this machine out.
keep() { # NAME: write standard input to this secret, unless the secret exists
    if [ -e "$1" ]; then cat > /dev/null; else cat > "$1" && chmod 444 "$1"; fi
}
random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

random | keep ray_token
random | keep postgres_password
random | keep mlflow_password
random | keep mlflow_key
printf '[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' "$(cat mlflow_password)" |
    keep mlflow_credentials

key="$(random)"
printf '[default]\naws_access_key_id = sclip\naws_secret_access_key = %s\n' "$key" | keep s3_credentials
key="$(sed -n 's/^aws_secret_access_key = //p' s3_credentials)"
printf '{"identities": [{"name": "sclip", "credentials": [{"accessKey": "sclip", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' \
    "$key" | keep s3_identities
