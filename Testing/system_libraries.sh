#!/usr/bin/env bash
# The panel tests need a few system libraries that desktops have and bare servers lack.
# Installs them on Debian and Ubuntu as root; elsewhere says which ones are missing.
set -euo pipefail
python=$1

missing=$("$python" - <<'PYTHON'
import ctypes

# What PySide6 (QtWidgets, offscreen) links to, and the Debian package of each.
libraries = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libX11.so.6": "libx11-6",
}
packages = []
for library, package in libraries.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        packages.append(package)
print(" ".join(sorted(set(packages))))
PYTHON
)

[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing system libraries: $missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word a package
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing && exit 0
fi
echo "The panel tests need system libraries that are missing here: install $missing (Debian names)." >&2
