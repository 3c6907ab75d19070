#!/bin/sh
# Installs qus and its emulators from a release, or from a directory with its tarballs.
set -eu

usage() {
    cat <<'TEXT'
Install qus, which runs programs of other architectures, and its emulators

Usage: install.sh [OPTIONS]

Options:
  --version VERSION  install this release, such as 10.2.2-1 [default: the newest]
  --prefix DIR       install below this directory [default: /usr/local as root, else ~/.local]
  --from URL|DIR     take files from here: releases of a repository, or a directory with tarballs
  --key FILE         verify the signature of the release: a public key of minisign or cosign, or allowed signers of SSH
  --register         also register all architectures; requires root
  --uninstall        remove what this script has installed below the prefix
  --help             print this help

Files are verified with the checksums of the release before anything is changed, and with --key its signature.
TEXT
}

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# The name that releases have for this machine.
host() {
    case $(uname -m) in
    x86_64 | amd64) echo amd64 ;;
    aarch64 | arm64) echo arm64v8 ;;
    armv7* | armv8l) echo arm32v7 ;;
    armv6*) echo arm32v6 ;;
    i?86) echo i386 ;;
    ppc64le | s390x | riscv64) uname -m ;;
    loongarch64) echo loong64 ;;
    *) fail "there are no emulators for machines of the kind $(uname -m)" ;;
    esac
}

# fetch NAME FILE: downloads or copies a file of the release.
fetch() {
    case $from in
    http://* | https://*)
        url=$from/${version:+download/v$version/}
        [ -n "$version" ] || url=$from/latest/download/
        if has curl; then
            curl --fail --silent --show-error --location --output "$2" "$url$1" || fail "cannot download $url$1"
        elif has wget; then
            wget -q -O "$2" "$url$1" || fail "cannot download $url$1"
        else
            fail 'neither curl nor wget is installed' 'install one of them, or download the files and use --from DIR'
        fi
        ;;
    *) cp "$from/$1" "$2" 2>/dev/null || fail "there is no $1 in $from" ;;
    esac
}

# Verifies the signature of the release's checksums.
verify_signature() {
    case $(head -n 1 "$key") in
    'untrusted comment: minisign public key'*)
        has minisign || fail 'minisign, which verifies the signature, is not installed'
        fetch SHA256SUMS.minisig "$work/sums.minisig"
        minisign -Vqm "$work/sums" -p "$key" || fail 'SHA256SUMS is not signed with this key'
        ;;
    '-----BEGIN PUBLIC KEY-----'*)
        has cosign || fail 'cosign, which verifies the signature, is not installed'
        fetch SHA256SUMS.sigstore.json "$work/sums.sigstore.json"
        # The key is enough: releases are not in a transparency log.
        cosign verify-blob --key "$key" --bundle "$work/sums.sigstore.json" --insecure-ignore-tlog "$work/sums" \
            >/dev/null 2>&1 || fail 'SHA256SUMS is not signed with this key'
        ;;
    *)
        has ssh-keygen || fail 'ssh-keygen, which verifies the signature, is not installed'
        fetch SHA256SUMS.sig "$work/sums.sig"
        signer=$(ssh-keygen -Y find-principals -s "$work/sums.sig" -f "$key" 2>/dev/null | head -n 1)
        ssh-keygen -Y verify -n qus-release -f "$key" -I "$signer" -s "$work/sums.sig" <"$work/sums" >/dev/null 2>&1 ||
            fail "SHA256SUMS is not signed by anyone in $key"
        ;;
    esac
}

# Links that belong to an installation: where they are, and what they point to in it.
links() {
    cat <<'TEXT'
bin/qus qus
share/man/man1/qus.1 share/man/man1/qus.1
share/bash-completion/completions/qus share/bash-completion/completions/qus
share/zsh/site-functions/_qus share/zsh/site-functions/_qus
share/fish/vendor_completions.d/qus.fish share/fish/vendor_completions.d/qus.fish
TEXT
}

unlink_all() {
    links | while read -r link target; do
        if [ "$(readlink "$prefix/$link" 2>/dev/null)" = "$dir/$target" ]; then
            rm -f "$prefix/$link"
        fi
    done
}

uninstall() {
    [ -d "$dir" ] || fail "qus is not installed in $dir" 'name its directory with --prefix'
    # The kernel keeps emulators open, so that their handlers would work on without their files.
    if grep -qs "^interpreter $dir/" /proc/sys/fs/binfmt_misc/*; then
        fail 'its emulators are registered' "run \`sudo $dir/qus remove all\` first"
    fi
    unlink_all
    rm -rf "$dir"
    echo "removed qus from $prefix"
}

install() {
    for program in tar sha256sum; do
        has "$program" || fail "$program is not installed"
    done
    [ -z "$key" ] || [ -f "$key" ] || fail "there is no key $key"
    [ -z "$register" ] || [ "$(id -u)" = 0 ] || fail '--register requires root' 'leave it out, or use sudo'
    has zstd || fail 'zstd is not installed' 'install the package zstd of your distribution'
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    fetch SHA256SUMS "$work/sums"
    [ -z "$key" ] || verify_signature
    # The version is not known yet if the newest is wanted.
    pattern=" qus-bundle_${version:-[0-9.]*-[0-9]*}_$(host)\\.tar\\.zst\$"
    line=$(grep -- "$pattern" "$work/sums" | tail -n 1)
    [ -n "$line" ] ||
        fail "the release has no tarball for $(host)${version:+ and version $version}"
    name=${line##* }
    fetch "$name" "$work/$name"
    printf '%s\n' "$line" >"$work/wanted"
    (cd "$work" && sha256sum -c wanted >/dev/null 2>&1) ||
        fail "$name does not have the checksum of the release" 'nothing was changed; try again later, or report it'
    mkdir -p "${dir%/*}" 2>/dev/null || fail "cannot write to $prefix" 'name another directory with --prefix, or run it as root'
    new=$dir.new
    rm -rf "$new"
    mkdir "$new" 2>/dev/null || fail "cannot write to ${dir%/*}" 'name another directory with --prefix, or run it as root'
    if ! zstd -dc "$work/$name" | tar -xf - -C "$new"; then
        rm -rf "$new"
        fail "cannot unpack $name in $new"
    fi
    # Until here, an installed version was not touched.
    rm -rf "$dir.old"
    [ ! -d "$dir" ] || mv "$dir" "$dir.old"
    if ! mv "$new/${name%.tar.zst}" "$dir"; then
        [ ! -d "$dir.old" ] || mv "$dir.old" "$dir"
        fail "$name is not what was expected"
    fi
    rm -rf "$new" "$dir.old"
    links | while read -r link target; do
        mkdir -p "$prefix/${link%/*}"
        ln -sf "$dir/$target" "$prefix/$link"
    done
    echo "installed $("$dir/qus" --version) in $prefix"
    case :$PATH: in
    *":$prefix/bin:"*) ;;
    *) echo "note: $prefix/bin is not in PATH" >&2 ;;
    esac
    if [ -z "$register" ]; then
        echo "to run programs of all architectures: sudo $prefix/bin/qus install all"
    else
        "$dir/qus" install all
    fi
}

version='' prefix='' from=https://github.com/OWNER/qus/releases key='' register='' action=install
while [ $# -gt 0 ]; do
    case $1 in
    --version | --prefix | --from | --key)
        [ $# -gt 1 ] || { fail "$1 requires a value" "see --help"; }
        case $1 in
        --version) version=$2 ;;
        --prefix) prefix=$2 ;;
        --from) from=${2%/} ;;
        --key) key=$2 ;;
        esac
        shift
        ;;
    --register) register=yes ;;
    --uninstall) action=uninstall ;;
    --help)
        usage
        exit
        ;;
    *)
        echo "error: unknown argument $1; see --help" >&2
        exit 2
        ;;
    esac
    shift
done
if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=$HOME/.local; fi
fi
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
# Not in lib/qus, where `qus install --persist` keeps its copies.
dir=$prefix/libexec/qus
$action
