#!/usr/bin/env bash
# The panel tests need a few system libraries that desktops have and bare servers lack, and the tests of HTML reports a
# headless Chromium. Installs them on Debian and Ubuntu as root; elsewhere says what is missing.
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

# The same commands as in Testing/tests/browser.py. Of Debian's browsers, chromium-headless-shell is the smallest.
browser=""
for command in chromium-headless-shell chromium chromium-browser google-chrome chrome-headless-shell; do
    command -v "$command" >/dev/null && browser=$command && break
done

[ -z "$missing" ] && [ -n "$browser" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || true
    if [ -n "$missing" ]; then
        echo "installing system libraries: $missing"
        # shellcheck disable=SC2086  # one word a package
        apt-get install -y -qq --no-install-recommends $missing && missing=""
    fi
    if [ -z "$browser" ]; then
        echo "installing a headless browser: chromium-headless-shell"
        # A font, without which a bare server draws boxes for letters.
        apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core && browser=installed
    fi
fi
if [ -n "$missing" ]; then
    echo "The panel tests need system libraries that are missing here: install $missing (Debian names)." >&2
fi
if [ -z "$browser" ]; then
    echo "The tests of HTML reports are skipped without a headless browser: install chromium (Debian's" \
        "chromium-headless-shell suffices)." >&2
fi
