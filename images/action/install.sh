#!/usr/bin/env bash
# The two steps of action.yml; it also runs outside GitHub.
#
#   install.sh image      decides what is used -> output `image`, its name; or `release`, a version or `latest`
#   install.sh install    registers handlers with it -> outputs `platforms` and `status`
#
# Environment variables:
#   QUS_IMAGE         the image; may be empty for `image`
#   QUS_VERSION       for `image`: the release that is used instead, without docker
#   QUS_RELEASE       for `install`: the output `release`
#   QUS_FROM          where releases are, as `--from` of images/install.sh
#   QUS_REPOSITORY    GitHub's name of the action's repository, for the default image
#   QUS_PLATFORMS     architectures, separated by commas or white space, or `all`
#   QUS_RESET         `true`: remove handlers of qus first; new ones take precedence over those of other tools
#   QUS_CACHE         directory in which the image is cached; none if empty
#   GITHUB_OUTPUT     file to which outputs are appended
#   GITHUB_STEP_SUMMARY   file to which a list of handlers is appended, if set

set -euo pipefail

# To standard error, which GitHub reads too: standard output may be captured.
fail() {
    local text=${1//'%'/'%25'}
    echo "::error title=qus::${text//$'\n'/'%0A'}" >&2
    exit 1
}

has() { command -v "$1" >/dev/null; }

# Outputs what is used: the image, or a release if one is asked for or there is no docker.
image() {
    local name=${QUS_IMAGE:-} release=${QUS_VERSION:-}
    if [[ -z $release ]] && ! has docker; then
        # The tag, behind the last slash, because registries can have a port.
        release=${name%%@*} release=${release##*/}
        case $release in
        *:*) release=${release##*:} ;;
        *) release=latest ;;
        esac
        [[ $release == latest || $release =~ ^[0-9.]+-[0-9]+$ ]] ||
            fail "this runner has no docker, and the tag of $name names no release: name one with \`version\`"
    fi
    if [[ -n $release ]]; then
        echo "release=$release" >>"$GITHUB_OUTPUT"
        return
    fi
    if [[ -z $name ]]; then
        [[ -n ${QUS_REPOSITORY:-} ]] ||
            fail 'a local action has no default image: name one with `image`'
        # Registries require lower case; GitHub's names can have upper case.
        name=ghcr.io/${QUS_REPOSITORY,,}:latest
    fi
    echo "image=$name" >>"$GITHUB_OUTPUT"
}

# Installs the release below /usr/local, as `sudo images/install.sh` does.
fetch_release() {
    local -a args=()
    [[ $QUS_RELEASE == latest ]] || args+=(--version "$QUS_RELEASE")
    [[ -z ${QUS_FROM:-} ]] || args+=(--from "$QUS_FROM")
    if ((EUID)); then
        has sudo || fail 'registering handlers requires root, and sudo is not installed'
        as_root=(sudo)
    fi
    try 'the installation' "${as_root[@]}" sh "${BASH_SOURCE[0]%/*}/../install.sh" "${args[@]}" >&2
}

# Loads the image from the cache, or pulls it.
fetch_image() {
    local archive=${QUS_CACHE:+$QUS_CACHE/image.tar}
    if [[ -n $archive && -f $archive ]]; then
        docker load --input "$archive" >&2 || fail "docker cannot load $archive: delete the cache"
    else
        docker pull "$QUS_IMAGE" >&2 || fail "docker cannot pull $QUS_IMAGE: name another with \`image\`"
        if [[ -n $archive ]]; then
            mkdir -p "$QUS_CACHE"
            docker save --output "$archive.partial" "$QUS_IMAGE"
            mv "$archive.partial" "$archive"
        fi
    fi
    # Tags can move; this records which image was used.
    docker image inspect --format "$QUS_IMAGE is {{.Id}} {{.RepoDigests}}" "$QUS_IMAGE" >&2
}

# try WHAT COMMAND...: runs a command. Its messages are shown, and are the error if it fails.
try() {
    local what=$1
    shift
    if ! "$@" 2>"$talk"; then
        cat "$talk" >&2
        fail "$what failed"$'\n'"$(tail -n 20 "$talk")"
    fi
    cat "$talk" >&2
}

# Runs qus on the host's handlers. In the host's PID namespace a container can mount binfmt_misc where the handlers last.
qus() {
    local -a command=(docker run --rm --privileged --pid host "${QUS_IMAGE:-}")
    [[ -z ${QUS_RELEASE:-} ]] || command=("${as_root[@]}" /usr/local/bin/qus)
    try "qus $*" "${command[@]}" "$@"
}

install() {
    local -a platforms force=()
    # Commas, spaces, tabs and newlines separate words.
    local words=${QUS_PLATFORMS:-}
    words=${words//[$',\n\t']/ }
    read -ra platforms <<<"$words"
    ((${#platforms[@]})) || fail 'no platform was named: set `platforms` to architectures or `all`'
    [[ -n ${QUS_IMAGE:-}${QUS_RELEASE:-} ]] || fail 'no image was named'
    talk=$(mktemp)
    trap 'rm -f "$talk"' EXIT
    as_root=()
    if [[ -n ${QUS_RELEASE:-} ]]; then
        fetch_release
    else
        has docker || fail 'this runner has no docker'
        fetch_image
    fi
    if [[ ${QUS_RESET:-} == true ]]; then
        qus remove all
        force=(--force)
    fi
    qus install "${force[@]}" "${platforms[@]}"
    local printed status table
    # Only platforms contain a slash: names of handlers are file names.
    printed=$(qus platforms)
    status=$(qus status --json)
    {
        echo "platforms=$(grep -o 'linux/[^"]*' <<<"$printed" | paste -sd , -)"
        # END cannot be a line of the JSON.
        printf 'status<<END\n%s\nEND\n' "$status"
    } >>"$GITHUB_OUTPUT"
    table=$(qus status)
    printf '::group::Handlers\n%s\n::endgroup::\n' "$table" >&2
    printf '### Handlers\n\n```\n%s\n```\n' "$table" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}

: "${GITHUB_OUTPUT:?is not set: the file to which outputs are appended}"
case ${1:-} in
image) image ;;
install) install ;;
*) fail 'usage: install.sh image|install' ;;
esac
