#!/usr/bin/env bash
# Converts an image whose one layer is one file of GIB (default 20) gibibytes, one in eight of them noise, and prints wall and CPU seconds, peak memory, the
# largest size of the work directory and the size of the target: bench/huge-layer.sh DIR [GIB]     (DIR gets 8 GB for 20 GiB; removed at the end)
set -euo pipefail
dir=${1:?usage: bench/huge-layer.sh DIR [GIB]} gib=${2:-20} root=$(cd "$(dirname "$0")/.." && pwd)
mkdir "$dir" && cd "$dir"
trap 'rm -rf "$dir"; kill $(jobs -p) 2>/dev/null || true' EXIT
mkdir -p layout/blobs/sha256

python3 - "$gib" <<'PY'
"""An OCI layout with one zstd layer, packed and hashed as it is made: each MiB of the file is another."""
import hashlib, json, os, pathlib, subprocess, sys, tarfile
blobs = pathlib.Path("layout/blobs/sha256")

def put(data, media):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

entry = tarfile.TarInfo("big")
entry.size = int(sys.argv[1]) << 30
diff = hashlib.sha256()
with open("layer", "wb") as layer:
    packer = subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=subprocess.PIPE, stdout=layer)
    def write(data):
        diff.update(data)
        packer.stdin.write(data)
    write(entry.tobuf(tarfile.GNU_FORMAT))
    text = bytearray((b"line of a log that is like all the others in it\n" * 22000)[: 1 << 20])
    for mib in range(entry.size >> 20):
        text[0:8] = b"%08d" % mib
        write(os.urandom(1 << 20) if mib % 8 == 0 else text)
    write(b"\0" * 1024)
    packer.stdin.close()
    assert packer.wait() == 0
digest = hashlib.sha256()
with open("layer", "rb") as layer:
    while piece := layer.read(1 << 20): digest.update(piece)
size = os.path.getsize("layer")
os.rename("layer", blobs / digest.hexdigest())
config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff.hexdigest()]}}).encode(), "application/vnd.oci.image.config.v1+json")
media = "application/vnd.oci.image.manifest.v1+json"
manifest = put(json.dumps({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": "sha256:" + digest.hexdigest(), "size": size}]}).encode(), media)
pathlib.Path("layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
pathlib.Path("layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "annotations": {"org.opencontainers.image.ref.name": "src"}}]}))
PY

(largest=0; while sleep 0.5; do size=$(du -sb work 2>/dev/null | cut -f1 || true); [ "${size:-0}" -gt "$largest" ] && largest=$size; echo "$largest" > largest; done) &
/usr/bin/time -f 'wall %e s, user %U s, system %S s, peak memory %M KiB' node "$root/bin/nydusify" convert --source oci:layout:src --target oci:target:x --work-dir work 2>&1 | grep -E 'wall|fatal'
echo "largest work directory $(cat largest) bytes, target $(du -sb target | cut -f1) bytes"
