//! Why a registry or an engine did not do as it was asked: what the words of Docker, BuildKit and buildx mean, whether
//! it passes by itself, and what to do about it.

use std::fmt;

use anyhow::Error;
use qus_core::hint::hinted;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Unauthorized,
    Forbidden,
    NotFound,
    TooMany,
    Server,
    Lost,
    Refused,
    NoSuchHost,
    Tls,
    Plain,
    Full,
    Gone,
    Untrue,
    /// Not the registry's, or nothing that we know.
    Other,
}

impl Fault {
    /// Words and what they mean; the first that are found count.
    const WORDS: [(&'static str, Self); 40] = [
        ("Cannot connect to the Docker daemon", Self::Gone),
        ("server gave HTTP response to HTTPS client", Self::Plain),
        ("first record does not look like a TLS handshake", Self::Plain),
        ("TLS handshake timeout", Self::Lost),
        ("x509:", Self::Tls),
        ("tls: ", Self::Tls),
        ("no space left on device", Self::Full),
        ("429 Too Many Requests", Self::TooMany),
        ("toomanyrequests", Self::TooMany),
        ("401 Unauthorized", Self::Unauthorized),
        ("authorization failed", Self::Unauthorized),
        ("no basic auth credentials", Self::Unauthorized),
        ("authentication required", Self::Unauthorized),
        ("unauthorized", Self::Unauthorized),
        ("403 Forbidden", Self::Forbidden),
        ("insufficient_scope", Self::Forbidden),
        ("denied: ", Self::Forbidden),
        ("ERROR: denied", Self::Forbidden),
        ("405 Method Not Allowed", Self::Forbidden),
        ("500 Internal Server Error", Self::Server),
        ("502 Bad Gateway", Self::Server),
        ("503 Service Unavailable", Self::Server),
        ("504 Gateway Timeout", Self::Server),
        ("received unexpected HTTP status: 5", Self::Server),
        ("no such host", Self::NoSuchHost),
        ("connection refused", Self::Refused),
        ("connection reset", Self::Lost),
        ("broken pipe", Self::Lost),
        ("unexpected EOF", Self::Lost),
        ("i/o timeout", Self::Lost),
        ("unexpected digest", Self::Untrue),
        ("unsupported protocol scheme", Self::Untrue),
        ("out of memory", Self::Untrue),
        ("unexpected EOF", Self::Lost),
        (": EOF", Self::Lost),
        ("context deadline exceeded", Self::Lost),
        ("use of closed network connection", Self::Lost),
        ("name unknown", Self::NotFound),
        ("404 Not Found", Self::NotFound),
        (": not found", Self::NotFound),
    ];

    /// What a failed program meant by what it said. Only its last word counts: a log also tells of failures that it got
    /// over.
    pub(super) fn of(said: &str) -> Self {
        let last = last_word(said);
        let found = Self::WORDS.iter().find(|(words, _)| last.contains(words));
        found.map_or(Self::Other, |(_, fault)| *fault)
    }

    /// Whether waiting may help.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::TooMany | Self::Server | Self::Lost)
    }

    /// Whether the registry may say how long it takes, with `Retry-After`.
    pub(super) fn may_tell_when(self) -> bool {
        matches!(self, Self::TooMany | Self::Server)
    }

    /// What failed, why, and what to do; all that was said where we do not know what it means.
    pub(super) fn explain(self, error: Error, what: &str, attempts: u32, repo: &str) -> Error {
        let Some(hint) = self.hint(repo) else { return error.context(what.to_owned()) };
        let said = error.to_string();
        let last = last_word(&said).trim_start_matches(ERROR);
        let times = if attempts == 1 { String::new() } else { format!(", {attempts} times") };
        hinted(format_args!("{what}: {self}{times}: {last}"), hint)
    }

    fn hint(self, repo: &str) -> Option<String> {
        let registry = repo.split_once('/').map_or("docker.io", |(registry, _)| registry);
        Some(match self {
            Self::Unauthorized => format!("to log in, run `docker login {registry}`"),
            Self::Forbidden => format!(
                "the account that `docker login {registry}` uses needs permission to write to {repo}; a registry may also \
                 be read-only"
            ),
            Self::NotFound => {
                format!("create the repository {repo} in the registry first, or choose another with --repo")
            }
            Self::TooMany => format!(
                "wait before you try again: {registry} limits the requests of an account and an address"
            ),
            Self::Server => format!(
                "see the log of {registry}: is its disk full? the same command continues where this one stopped"
            ),
            Self::Lost => "the same command continues where this one stopped".to_owned(),
            Self::Refused => format!("check the name and port {registry}, and that the registry runs"),
            Self::NoSuchHost => format!("check the spelling of {registry}, and the network"),
            Self::Tls => format!(
                "add the certificate of {registry} to /etc/docker/certs.d, or allow it as an insecure registry"
            ),
            Self::Plain => format!(
                "configure {registry} for https, or allow it as an insecure registry in /etc/docker/daemon.json"
            ),
            Self::Full => "free space where the engine or the registry keeps its data".to_owned(),
            Self::Gone => {
                "start the engine again; see its log for why it has ended: is its disk full?".to_owned()
            }
            Self::Untrue => {
                format!("check that {registry} is a registry, and that no proxy changes what it sends")
            }
            Self::Other => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unauthorized => "the registry requires a login",
            Self::Forbidden => "the registry forbids it",
            Self::NotFound => "the registry does not have it",
            Self::TooMany => "too many requests",
            Self::Server => "the registry has failed",
            Self::Lost => "the connection was lost",
            Self::Refused => "connection refused",
            Self::NoSuchHost => "unknown name of the registry",
            Self::Tls => "the registry's certificate is not accepted",
            Self::Plain => "the registry does not speak https",
            Self::Full => "a disk is full",
            Self::Gone => "the engine has ended",
            Self::Untrue => "the registry sends something else than what was asked for",
            Self::Other => "it failed",
        })
    }
}

/// What buildx begins its last word with.
const ERROR: &str = "ERROR: ";

/// The line with which buildx gave up, or was ended; all that was said where there is none.
fn last_word(said: &str) -> &str {
    let at = said.rfind(ERROR).or_else(|| said.find("fatal error: "));
    at.map_or(said, |at| said[at..].lines().next().unwrap_or_default()).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use qus_core::hint;

    /// What buildx, with the drivers `docker` and `remote`, and Docker's classic image store have said.
    const SAID: [(&str, Fault); 38] = [
        (
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic \
             auth credentials",
            Fault::Unauthorized,
        ),
        (
            "unexpected status from HEAD request to http://localhost:5100/v2/x/manifests/1: 401 Unauthorized",
            Fault::Unauthorized,
        ),
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to \
             http://localhost:5102/token?service=fake: 401 Unauthorized",
            Fault::Unauthorized,
        ),
        ("no basic auth credentials", Fault::Unauthorized),
        ("unauthorized", Fault::Unauthorized),
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to \
             http://localhost:5104/token?service=fake: 403 Forbidden",
            Fault::Forbidden,
        ),
        (
            "failed to solve: failed to push localhost:5107/x:1: unexpected status from POST request to \
             http://localhost:5107/v2/x/blobs/uploads/: 403 Forbidden",
            Fault::Forbidden,
        ),
        ("denied", Fault::Forbidden),
        ("denied: ", Fault::Forbidden),
        (
            "failed to solve: failed to push localhost:5108/x:1: unexpected status from POST request to \
             http://localhost:5108/v2/x/blobs/uploads/: 404 Not Found",
            Fault::NotFound,
        ),
        ("localhost:5108/insp/x:1: not found", Fault::NotFound),
        ("name unknown", Fault::NotFound),
        (
            "unexpected status from HEAD request to http://localhost:5109/v2/x/manifests/1: 429 Too Many Requests",
            Fault::TooMany,
        ),
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to \
             http://localhost:5105/token?service=fake: 429 Too Many Requests",
            Fault::TooMany,
        ),
        ("toomanyrequests", Fault::TooMany),
        (
            "failed commit on ref \"index-sha256:9f90\": unexpected status from PUT request to \
             http://localhost:5124/v2/x/manifests/1: 500 Internal Server Error",
            Fault::Server,
        ),
        ("received unexpected HTTP status: 503 Service Unavailable", Fault::Server),
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to \
             http://localhost:5106/token?service=fake: 503 Service Unavailable",
            Fault::Server,
        ),
        (
            "failed to solve: failed to push localhost:5133/x:1: failed commit on ref \"config-sha256:f031\": failed to do \
             request: Put \"http://localhost:5133/v2/x/blobs/uploads/a0fa\": read tcp 127.0.0.1:46574->127.0.0.1:5133: \
             read: connection reset by peer",
            Fault::Lost,
        ),
        ("write tcp 127.0.0.1:46684->127.0.0.1:5133: use of closed network connection", Fault::Lost),
        ("failed to do request: Head \"http://localhost:5135/v2/x/manifests/1\": EOF", Fault::Lost),
        ("Put \"http://localhost:5136/v2/x/manifests/1\": EOF", Fault::Lost),
        ("EOF", Fault::Lost),
        ("unexpected EOF", Fault::Lost),
        ("failed commit on ref \"\": unexpected digest: sha256:98e7 != sha256:bbbb", Fault::Untrue),
        (
            "failed to do request: Head \"file:///etc/passwd\": unsupported protocol scheme \"file\"",
            Fault::Untrue,
        ),
        ("failed to solve: DeadlineExceeded: context deadline exceeded", Fault::Lost),
        ("Get \"https://example.org/v2/\": net/http: TLS handshake timeout", Fault::Lost),
        (
            "failed to do request: Head \"http://localhost:5199/v2/x/manifests/1\": dial tcp 127.0.0.1:5199: connect: \
             connection refused",
            Fault::Refused,
        ),
        (
            "failed to do request: Head \"https://nosuch.invalid/v2/x/manifests/1\": dial tcp: lookup nosuch.invalid on \
             192.0.2.53:53: no such host",
            Fault::NoSuchHost,
        ),
        (
            "failed to do request: Head \"https://192.0.2.1:5181/v2/x/manifests/1\": tls: failed to verify certificate: x509: \
             cannot validate certificate for 192.0.2.1 because it doesn't contain any IP SANs",
            Fault::Tls,
        ),
        (
            "Get \"https://192.0.2.1:5183/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown \
             authority",
            Fault::Tls,
        ),
        (
            "failed to do request: Head \"https://192.0.2.1:5182/v2/x/manifests/1\": http: server gave HTTP response to HTTPS \
             client",
            Fault::Plain,
        ),
        (
            "failed to solve: failed to push localhost:5100/x:1: failed to do request: Head \
             \"https://localhost:5100/v2/x/blobs/sha256:affb\": tls: first record does not look like a TLS handshake",
            Fault::Plain,
        ),
        (
            "failed to solve: failed to push localhost:5140/x:1: unexpected status from POST request to \
             http://localhost:5140/v2/x/blobs/uploads/: 405 Method Not Allowed",
            Fault::Forbidden,
        ),
        ("failed to solve: write /var/lib/docker/tmp/x: no space left on device", Fault::Full),
        (
            "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?",
            Fault::Gone,
        ),
        ("failed to solve: failed to read dockerfile: no such file or directory", Fault::Other),
    ];

    #[test]
    fn what_was_said_is_understood() {
        for (said, fault) in SAID {
            let quick = format!("docker failed (exit status: 1): ERROR: {said}");
            let log = format!(
                "docker failed (exit status: 1); the end of log:\n    #5 0.720 error: 503 Service Unavailable\n    #5 0.720 \
                 retrying in 1s\n    #5 ERROR: x\n    ERROR: {said}"
            );
            for said in [quick, log] {
                assert_eq!(Fault::of(&said), fault, "{said}");
            }
        }
    }

    #[test]
    fn what_failed_why_and_what_to_do() {
        let explain = |said: &str, attempts| {
            let fault = Fault::of(said);
            hint::render(&fault.explain(anyhow!("{said}"), "building images", attempts, "ghcr.io/a/b"))
        };
        assert_eq!(
            explain("docker failed; the end of log:\n    #1 x\n    ERROR: y: 401 Unauthorized\n    z", 1),
            "error: building images: the registry requires a login: y: 401 Unauthorized\nhint: to log in, run `docker login \
             ghcr.io`\n"
        );
        let memory =
            explain("docker failed: runtime: out of memory\nfatal error: out of memory\n\ngoroutine 1", 1);
        assert!(memory.contains("than what was asked for: fatal error: out of memory\nhint: "), "{memory}");
        assert!(explain("docker failed: ERROR: EOF", 4).contains("the connection was lost, 4 times: EOF\n"));
        assert_eq!(
            explain("docker failed: what?", 1),
            "error: building images\n  caused by: docker failed: what?\n"
        );
    }
}
