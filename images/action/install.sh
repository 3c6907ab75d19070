#!/usr/bin/env bash
# What action.yml does, in two steps; it runs outside GitHub too.
#
#   install.sh image      which image is meant -> output `image`
#   install.sh install    has it register handlers -> outputs `platforms` and `status`
#
# From the environment:
#   QUS_IMAGE         the image; for `image` it may be empty
#   QUS_REPOSITORY    OWNER/NAME of the action, for an image without a name
#   QUS_PLATFORMS     architectures, separated by commas or white space, or `all`
#   QUS_RESET         `true`: remove our handlers first, and put new ones in front of others'
#   QUS_CACHE         folder in which the image is kept; none if empty
#   GITHUB_OUTPUT     file to which outputs are added

set -euo pipefail

# To standard error, where GitHub looks for it too: standard output may be caught.
fail() {
    local text=${1//'%'/'%25'}
    echo "::error title=qus::${text//$'\n'/'%0A'}" >&2
    exit 1
}

# Writes the name of the image.
image() {
    local name=${QUS_IMAGE:-}
    if [[ -z $name ]]; then
        [[ -n ${QUS_REPOSITORY:-} ]] ||
            fail 'this action is used from a folder, which tells no image: name one with `image`'
        # Registries want lower case, in which GitHub does not keep names.
        name=ghcr.io/${QUS_REPOSITORY,,}:latest
    fi
    echo "image=$name" >>"$GITHUB_OUTPUT"
}

# Gets the image, from the cache if it is there.
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
    # Tags move; this says what was used.
    docker image inspect --format "$QUS_IMAGE is {{.Id}} {{.RepoDigests}}" "$QUS_IMAGE" >&2
}

# Runs qus on the host's handlers; what it says is shown, and is the error if it fails. With the host's
# processes it can mount binfmt_misc where the handlers last.
qus() {
    if ! docker run --rm --privileged --pid host "$QUS_IMAGE" "$@" 2>"$talk"; then
        cat "$talk" >&2
        fail "qus $* failed"$'\n'"$(tail -n 20 "$talk")"
    fi
    cat "$talk" >&2
}

install() {
    local -a platforms force=()
    # A word is a word, whatever it is separated by.
    local words=${QUS_PLATFORMS:-}
    words=${words//[$',\n\t']/ }
    read -ra platforms <<<"$words"
    ((${#platforms[@]})) || fail 'no platform was named: `platforms` may be `all`'
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
    local said status
    # Nothing else that it prints has a slash: handlers have the names of files.
    said=$(qus platforms)
    status=$(qus status --json)
    {
        echo "platforms=$(grep -o 'linux/[^"]*' <<<"$said" | paste -sd , -)"
        # No line of JSON is a bare word.
        printf 'status<<END\n%s\nEND\n' "$status"
    } >>"$GITHUB_OUTPUT"
}

: "${GITHUB_OUTPUT:?names no file to which outputs are added}"
case ${1:-} in
image) image ;;
install) install ;;
*) fail 'usage: install.sh image|install' ;;
esac
