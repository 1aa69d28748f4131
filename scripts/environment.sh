# Sourced by scripts/demo and scripts/test. Makes the .venv of this checkout and installs vqtok into it.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$checkout/.venv

usable_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv() {
    local python=${PYTHON:-python3}
    if ! command -v "$python" >/dev/null; then
        echo "error: $python not found; install Python 3.11 or newer, or name one: PYTHON=/path/to/python $0" >&2
        return 1
    fi
    if ! usable_python "$python"; then
        echo "error: vqtok needs Python 3.11 or newer, $python is $("$python" -V 2>&1);" \
            "name another one: PYTHON=/path/to/python $0" >&2
        return 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "error: $python has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2
        return 1
    fi
    "$python" -m venv --clear "$venv"
}

# What an installation depends on. It is kept in .venv after an installation, so that the next run compares and skips.
requirements() {
    echo "$checkout"
    cat "$checkout/pyproject.toml" "$checkout/constraints-cpu.txt"
}

# set_up [EXTRA]: install vqtok with the named extra unless this very checkout, pyproject.toml and constraints are installed.
# An installation with an extra serves those who ask for none. Needs no network once done.
set_up() {
    local extra=${1:-} installed
    if ! { usable_python "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
        make_venv
    fi
    for installed in "$venv"/installed"${extra:+-$extra}"*; do
        if requirements | cmp -s - "$installed"; then
            return
        fi
    done
    echo "setting up $venv: about two minutes, and a download of a few hundred megabytes, once"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        -c "$checkout/constraints-cpu.txt" -e "$checkout${extra:+[$extra]}"
    requirements >"$venv/installed${extra:+-$extra}"
}
