#!/usr/bin/env bash
# The two steps of action.yml; it also runs outside GitHub.
#
#   install.sh image      resolves the image's name -> output `image`
#   install.sh install    registers handlers with it -> outputs `platforms` and `status`
#
# Environment variables:
#   QUS_IMAGE         the image; may be empty for `image`
#   QUS_REPOSITORY    GitHub's name of the action's repository, for the default image
#   QUS_PLATFORMS     architectures, separated by commas or white space, or `all`
#   QUS_RESET         `true`: remove handlers of qus first; new ones take precedence over those of other tools
#   QUS_CACHE         directory in which the image is cached; none if empty
#   GITHUB_OUTPUT     file to which outputs are appended

set -euo pipefail

# To standard error, which GitHub reads too: standard output may be captured.
fail() {
    local text=${1//'%'/'%25'}
    echo "::error title=qus::${text//$'\n'/'%0A'}" >&2
    exit 1
}

# Outputs the name of the image.
image() {
    local name=${QUS_IMAGE:-}
    if [[ -z $name ]]; then
        [[ -n ${QUS_REPOSITORY:-} ]] ||
            fail 'a local action has no default image: name one with `image`'
        # Registries require lower case; GitHub's names can have upper case.
        name=ghcr.io/${QUS_REPOSITORY,,}:latest
    fi
    echo "image=$name" >>"$GITHUB_OUTPUT"
}

# Loads the image from the cache, or pulls it.
fetch() {
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

# Runs qus on the host's handlers. Its messages are shown, and are the error if it fails. In the host's PID namespace it
# can mount binfmt_misc where the handlers last.
qus() {
    if ! docker run --rm --privileged --pid host "$QUS_IMAGE" "$@" 2>"$talk"; then
        cat "$talk" >&2
        fail "qus $* failed"$'\n'"$(tail -n 20 "$talk")"
    fi
    cat "$talk" >&2
}

install() {
    local -a platforms force=()
    # Commas, spaces, tabs and newlines separate words.
    local words=${QUS_PLATFORMS:-}
    words=${words//[$',\n\t']/ }
    read -ra platforms <<<"$words"
    ((${#platforms[@]})) || fail 'no platform was named: set `platforms` to architectures or `all`'
    [[ -n ${QUS_IMAGE:-} ]] || fail 'no image was named'
    command -v docker >/dev/null || fail 'this runner has no docker'
    talk=$(mktemp)
    trap 'rm -f "$talk"' EXIT
    fetch
    if [[ ${QUS_RESET:-} == true ]]; then
        qus remove all
        force=(--force)
    fi
    qus install "${force[@]}" "${platforms[@]}"
    local printed status
    # Only platforms contain a slash: names of handlers are file names.
    printed=$(qus platforms)
    status=$(qus status --json)
    {
        echo "platforms=$(grep -o 'linux/[^"]*' <<<"$printed" | paste -sd , -)"
        # END cannot be a line of the JSON.
        printf 'status<<END\n%s\nEND\n' "$status"
    } >>"$GITHUB_OUTPUT"
}

: "${GITHUB_OUTPUT:?is not set: the file to which outputs are appended}"
case ${1:-} in
image) image ;;
install) install ;;
*) fail 'usage: install.sh image|install' ;;
esac
