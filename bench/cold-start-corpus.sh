#!/usr/bin/env bash
# Makes the image of bench/serve/cold-start from what bench/corpus.sh left in DIR: bench/cold-start-corpus.sh DIR
#   DIR/cold    an OCI layout, tag `app`: the corpus' layers with nodejs, a built Next.js application and a Python program, about 1 GB
set -euo pipefail
dir=$(realpath "${1:?usage: bench/cold-start-corpus.sh DIR}")
[ -e "$dir/cold/index.json" ] && exit 0
work=$(mktemp -d "$dir/cold-work.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir build && cp -al "$dir/layers/modules/srv" build/ && cp -al "$dir/layers/runtime" runtime
if [ ! -e runtime/usr/bin/node ]; then
  version=$(apt-cache madison nodejs | awk '$3 ~ /deb12/ {print $3; exit}')
  apt-get download "nodejs=$version" >/dev/null 2>&1 && dpkg -x nodejs_*.deb runtime
fi
cd build/srv/app
mkdir -p pages
cat > pages/index.js <<'JS'
import Button from '@mui/material/Button'
import _ from 'lodash'
import { format } from 'date-fns'
export async function getServerSideProps() { return { props: { now: format(new Date(0), 'yyyy'), sum: _.sum([1, 2, 3]) } } }
export default function Page({ now, sum }) { return <Button variant="contained">hello {now} {sum}</Button> }
JS
# a copy, for it is a link to the corpus'; as a CommonJS package the pages would not build
node -e 'const fs = require("fs"); const p = JSON.parse(fs.readFileSync("package.json")); delete p.type; fs.unlinkSync("package.json"); fs.writeFileSync("package.json", JSON.stringify(p))'
NEXT_TELEMETRY_DISABLED=1 npx next build >/dev/null
cd "$work"
mkdir -p app/srv/app app/srv/py
cp -a build/srv/app/{.next,pages,package.json} app/srv/app/
rm -rf app/srv/app/.next/{cache,trace}
head -c 40000000 /usr/bin/node > app/srv/app/data.bin
cat > app/srv/py/main.py <<'PY'
import argparse, asyncio, csv, decimal, email.message, http.client, json, logging, sqlite3, ssl, urllib.request, xml.etree.ElementTree
import numpy as np
a = np.arange(10000.0).reshape(100, 100)
print(float(np.linalg.norm(a @ a.T)), json.dumps({'ok': True}), decimal.Decimal('1.1') * 2, sqlite3.sqlite_version)
PY
python3 - "$dir" "$work" <<'PY'
"""Four folders to gzip layers to an OCI layout."""
import gzip, hashlib, json, os, pathlib, subprocess, sys
base, work = map(pathlib.Path, sys.argv[1:])
blobs = work / "cold/blobs/sha256"
blobs.mkdir(parents=True)

def put(data, media):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

layers, diffs = [], []
for folder in (base / "layers/base", work / "runtime", base / "layers/modules", work / "app"):
    tar = subprocess.run(["tar", "--sort=name", "--xattrs", "-cf", "-", "-C", folder, "."], check=True, stdout=subprocess.PIPE).stdout
    diffs.append("sha256:" + hashlib.sha256(tar).hexdigest())
    layers.append(put(gzip.compress(tar, 3, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}).encode(), "application/vnd.oci.image.config.v1+json")
manifest = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}).encode(), "application/vnd.oci.image.manifest.v1+json")
(work / "cold/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
(work / "cold/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "annotations": {"org.opencontainers.image.ref.name": "app"}}]}))
os.rename(work / "cold", base / "cold")
PY
