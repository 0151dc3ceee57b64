# SPDX-License-Identifier: GPL-2.0-or-later
# Sets up what the scripts need: Debian packages, and a Python environment with the project.
# Sourced by the other scripts; `set_up` leaves the environment's folder in $VENV.

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# As the XDG base directory specification says, a relative path is ignored.
case ${XDG_CACHE_HOME:-} in
/*) CACHE=$XDG_CACHE_HOME/qemu-hv ;;
*) CACHE=${HOME:?}/.cache/qemu-hv ;;
esac

PACKAGES=(
    gcc g++ make ninja-build pkg-config flex bison patch dpkg-dev xz-utils
    libglib2.0-dev libpixman-1-dev libfdt-dev zlib1g-dev libslirp-dev
    ca-certificates debian-archive-keyring
)
PYTHON_PACKAGES=(python3 python3-venv python3-dev)

say() {
    printf 'qemu-hv: %s\n' "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

# Succeeds if a Python can make environments and compile extensions.
python_is_complete() {
    "$1" - 2>/dev/null <<'PYTHON'
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info >= (3, 9)
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
PYTHON
}

find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if python_is_complete "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

missing_packages() {
    local wanted=("${PACKAGES[@]}")
    find_python >/dev/null || wanted+=("${PYTHON_PACKAGES[@]}")
    local installed name
    # dpkg-query fails if it does not know one of the names; it still prints the others.
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true)
    for name in "${wanted[@]}"; do
        grep -qx "$name installed" <<<"$installed" || printf '%s\n' "$name"
    done
}

install_packages() {
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        die "this needs Debian's package tools (dpkg, apt); on another system use 'qemu-hv build --source TARBALL'"
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0

    local as_root=()
    if ((EUID != 0)); then
        if command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
            as_root=(sudo)
        else
            die "missing Debian packages that only root can install; run, as root: apt-get install ${missing[*]}"
        fi
    fi
    say "installing Debian packages: ${missing[*]}"
    local log=$CACHE/packages.log
    {
        "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=600 update &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -q -y -o DPkg::Lock::Timeout=600 --no-install-recommends install "${missing[@]}"
    } >"$log" 2>&1 </dev/null || {
        tail -n 5 "$log" >&2
        die "apt-get could not install ${missing[*]}; its output is in $log"
    }
}

# Prints a key of the files and strings given.
key_of() {
    cat -- "$@" | sha256sum | cut -c 1-16
}

extension_key() {
    (cd "$CHECKOUT" && find setup.py pyproject.toml csrc/hv csrc/python -type f -print0 | sort -z |
        xargs -0 sha256sum | sha256sum | cut -c 1-16)
}

pip_install() {
    local purpose=$1 log=$VENV/pip.log
    shift
    say "$purpose"
    "$VENV/bin/python" -m pip --disable-pip-version-check install "$@" >"$log" 2>&1 </dev/null || {
        grep -E 'error|ERROR' "$log" | tail -n 5 >&2
        die "$purpose failed; pip's output is in $log"
    }
}

# Succeeds if the extension in the checkout is the one of this key. A cleaning may have taken it.
extension_is() {
    [[ -e $VENV/extension && $(cat "$VENV/extension") == "$1" ]] &&
        "$VENV/bin/python" -c 'import qemu_hv._core' 2>/dev/null
}

# Succeeds if the extension of this key was built before: a fresh checkout then gets it from there.
take_extension() {
    compgen -G "$VENV/extensions/$1/_core.*.so" >/dev/null || return 1
    cp "$VENV/extensions/$1"/_core.*.so "$CHECKOUT/qemu_hv/"
    printf '%s\n' "$1" >"$VENV/extension"
    extension_is "$1"
}

# Remembers the extension in the checkout as the one of this key, and forgets all but the last three.
keep_extension() {
    local kept=$VENV/extensions old
    printf '%s\n' "$1" >"$VENV/extension"
    if [[ ! -d $kept/$1 ]]; then
        mkdir -p "$kept/.new"
        cp "$CHECKOUT"/qemu_hv/_core.*.so "$kept/.new/"
        mv "$kept/.new" "$kept/$1"
        find "$kept" -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- |
            while read -r old; do rm -rf "$old"; done
    fi
}

install_environment() {
    local python version
    python=$(find_python) || die "no Python 3.9 or later that has venv and its headers was found"
    version=$("$python" -c 'import sys; print(sys.version)')
    VENV=$CACHE/venvs/$(printf '%s\n' "$CHECKOUT" "$python" "$version" | key_of - "$CHECKOUT/pyproject.toml")

    if [[ ! -e $VENV/ready ]]; then
        say "making a Python environment in $VENV"
        rm -rf "$VENV"
        "$python" -m venv "$VENV" || die "$python cannot make an environment in $VENV"
        pip_install "fetching the build tools" "setuptools>=64" "pybind11>=2.12" wheel
        touch "$VENV/ready"
    fi

    # Python files are used in place; only the extension may have to be built.
    local key
    key=$(extension_key)
    if [[ ! -e $VENV/extension ]]; then
        pip_install "fetching Python packages, building the extension" --no-build-isolation -e "$CHECKOUT[dev]"
    elif ! extension_is "$key" && ! take_extension "$key"; then
        pip_install "building the Python extension" --no-deps --no-build-isolation -e "$CHECKOUT"
    fi
    keep_extension "$key"
}

set_up() {
    mkdir -p "$CACHE" || die "cannot create the cache folder $CACHE; set XDG_CACHE_HOME to a folder you can write to"
    exec 9>"$CACHE/setup.lock"
    if ! flock -n 9; then
        say "another process is setting up; waiting for it"
        flock 9
    fi
    install_packages
    install_environment
    exec 9>&-
}
