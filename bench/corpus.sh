#!/usr/bin/env bash
# Makes the inputs of the large benchmarks under DIR (about 4 GB, some minutes, once): bench/corpus.sh DIR
#   DIR/linux   the kernel's sources from Debian: 83,000 entries, 1.3 GB
#   DIR/app     an OCI layout, tag `app`: Debian + python3/numpy + nodejs, node_modules, an application; 4 gzip layers, about 80,000 entries
# The same ingredients as the reference figures (Debian packages and npm packages), so that ratios can be compared; exact versions move.
set -euo pipefail
dir=${1:?usage: bench/corpus.sh DIR}
[ "$(id -u)" = 0 ] || { echo 'corpus: needs root (debootstrap, owners of files)' >&2; exit 1; }
mkdir -p "$dir/download" && cd "$dir"

if [ ! -e linux/.complete ]; then
  (cd download && apt-get download linux-source-6.1 >/dev/null)
  rm -rf linux unpacked && mkdir linux unpacked
  dpkg -x download/linux-source-6.1_*.deb unpacked
  tar -xJf unpacked/usr/src/linux-source-6.1.tar.xz -C linux --strip-components=1
  rm -rf unpacked && touch linux/.complete
fi

[ -e app/index.json ] && exit 0
command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap >/dev/null
rm -rf layers && mkdir -p layers/{base,runtime,modules,app}
debootstrap --variant=minbase bookworm layers/base >/dev/null
rm -rf layers/base/var/cache/apt layers/base/var/lib/apt/lists
packages=$(apt-get install -s --no-install-recommends -o Dir::State::status=/dev/null python3-numpy nodejs 2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p' | sort -u)
for package in $packages; do
  [ -e "layers/base/var/lib/dpkg/info/$package.list" ] || (cd download && apt-get download "$package" >/dev/null 2>&1) || true
done
for deb in download/*.deb; do case $deb in *linux-source*) ;; *) dpkg -x "$deb" layers/runtime ;; esac; done
mkdir -p layers/modules/srv/app
(cd layers/modules/srv/app && npm init -y >/dev/null && npm install --no-audit --no-fund --ignore-scripts --loglevel=error \
  next@14 react@18 react-dom@18 typescript@5 webpack@5 @mui/icons-material@5 @mui/material@5 @emotion/react @emotion/styled lodash rxjs date-fns)
mkdir -p layers/app/srv/app/pages && printf 'export default () => "hello"\n' > layers/app/srv/app/pages/index.js
head -c 40000000 /usr/bin/node > layers/app/srv/app/data.bin

python3 - "$dir" <<'PY'
"""Four folders → gzip layers → an OCI layout."""
import gzip, hashlib, json, os, pathlib, subprocess, sys
base = pathlib.Path(sys.argv[1])
blobs = base / "app.tmp/blobs/sha256"
blobs.mkdir(parents=True, exist_ok=True)

def put(data, media):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

layers, diffs = [], []
for name in ("base", "runtime", "modules", "app"):
    tar = subprocess.run(["tar", "--sort=name", "--xattrs", "-cf", "-", "-C", base / "layers" / name, "."], check=True, stdout=subprocess.PIPE).stdout
    diffs.append("sha256:" + hashlib.sha256(tar).hexdigest())
    layers.append(put(gzip.compress(tar, 6, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}).encode(), "application/vnd.oci.image.config.v1+json")
manifest = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}).encode(), "application/vnd.oci.image.manifest.v1+json")
(base / "app.tmp/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
(base / "app.tmp/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "annotations": {"org.opencontainers.image.ref.name": "app"}}]}))
os.rename(base / "app.tmp", base / "app")
PY
