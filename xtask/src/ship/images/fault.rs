//! Classifies errors of registries and engines by the messages of Docker, BuildKit and buildx: the cause, whether a
//! retry may help, and a hint.

use std::fmt;

use anyhow::Error;
use qus_core::hint::hinted;

use crate::ship::images::plan::split_repo;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Unauthorized,
    Forbidden,
    NotFound,
    TooMany,
    Server,
    ConnectionLost,
    Refused,
    NoSuchHost,
    Tls,
    PlainHttp,
    DiskFull,
    EngineGone,
    InvalidResponse,
    /// Not an error of the registry, or an unknown one.
    Other,
}

impl Fault {
    /// Parts of messages and their meaning; the first match is used.
    const MESSAGES: [(&'static str, Self); 39] = [
        ("Cannot connect to the Docker daemon", Self::EngineGone),
        ("server gave HTTP response to HTTPS client", Self::PlainHttp),
        ("first record does not look like a TLS handshake", Self::PlainHttp),
        ("TLS handshake timeout", Self::ConnectionLost),
        ("x509:", Self::Tls),
        ("tls: ", Self::Tls),
        ("no space left on device", Self::DiskFull),
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
        ("connection reset", Self::ConnectionLost),
        ("broken pipe", Self::ConnectionLost),
        ("unexpected EOF", Self::ConnectionLost),
        ("i/o timeout", Self::ConnectionLost),
        ("unexpected digest", Self::InvalidResponse),
        ("unsupported protocol scheme", Self::InvalidResponse),
        ("out of memory", Self::InvalidResponse),
        (": EOF", Self::ConnectionLost),
        ("context deadline exceeded", Self::ConnectionLost),
        ("use of closed network connection", Self::ConnectionLost),
        ("name unknown", Self::NotFound),
        ("404 Not Found", Self::NotFound),
        (": not found", Self::NotFound),
    ];

    /// Classifies the output of a failed program. Only its final error is used, because a log also contains errors that
    /// were retried successfully.
    pub(super) fn classify(output: &str) -> Self {
        let error = final_error(output);
        let found = Self::MESSAGES.iter().find(|(message, _)| error.contains(message));
        found.map_or(Self::Other, |(_, fault)| *fault)
    }

    /// Whether a retry may help.
    pub(super) fn is_transient(self) -> bool {
        matches!(self, Self::TooMany | Self::Server | Self::ConnectionLost)
    }

    /// Whether the registry may send `Retry-After`.
    pub(super) fn may_have_retry_after(self) -> bool {
        matches!(self, Self::TooMany | Self::Server)
    }

    /// An error with the operation, the cause and a hint; with the complete output if the cause is unknown.
    pub(super) fn explain(self, error: Error, what: &str, attempts: u32, repo: &str) -> Error {
        let Some(hint) = self.hint(repo) else { return error.context(what.to_owned()) };
        let output = error.to_string();
        let last = final_error(&output).trim_start_matches(ERROR);
        let times = if attempts == 1 { String::new() } else { format!(", {attempts} times") };
        hinted(format_args!("{what}: {self}{times}: {last}"), hint)
    }

    fn hint(self, repo: &str) -> Option<String> {
        let registry = split_repo(repo).0.unwrap_or("docker.io");
        Some(match self {
            Self::Unauthorized => format!("to log in, run `docker login {registry}`"),
            Self::Forbidden => format!(
                "the account of `docker login {registry}` needs permission to write to {repo}; the registry may also \
                 be read-only"
            ),
            Self::NotFound => {
                format!("create the repository {repo} in the registry first, or choose another with --repo")
            }
            Self::TooMany => format!("retry later: {registry} limits the number of requests"),
            Self::Server => format!(
                "see the log of {registry}; its disk may be full; run the same command again to resume"
            ),
            Self::ConnectionLost => "run the same command again to resume".to_owned(),
            Self::Refused => format!("check the name and port {registry}, and that the registry is running"),
            Self::NoSuchHost => format!("check the spelling of {registry}, and the network"),
            Self::Tls => format!(
                "add the certificate of {registry} to /etc/docker/certs.d, or configure it as an insecure registry"
            ),
            Self::PlainHttp => format!(
                "configure {registry} for HTTPS, or configure it as an insecure registry in /etc/docker/daemon.json"
            ),
            Self::DiskFull => "free disk space for the data of the engine or the registry".to_owned(),
            Self::EngineGone => "restart the engine; its log has the cause; its disk may be full".to_owned(),
            Self::InvalidResponse => {
                format!("check that {registry} is a registry, and that no proxy changes its responses")
            }
            Self::Other => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unauthorized => "the registry requires a login",
            Self::Forbidden => "the registry denies access",
            Self::NotFound => "not found in the registry",
            Self::TooMany => "too many requests",
            Self::Server => "the registry reports a server error",
            Self::ConnectionLost => "the connection was lost",
            Self::Refused => "connection refused",
            Self::NoSuchHost => "the registry's host name cannot be resolved",
            Self::Tls => "the registry's certificate is not trusted",
            Self::PlainHttp => "the registry does not support HTTPS",
            Self::DiskFull => "no space left on a disk",
            Self::EngineGone => "the engine is not running",
            Self::InvalidResponse => "the registry sends an invalid response",
            Self::Other => "failed",
        })
    }
}

/// The prefix of buildx's final error.
const ERROR: &str = "ERROR: ";

/// The line of buildx's final error or crash; the complete output if there is none.
fn final_error(output: &str) -> &str {
    let at = output.rfind(ERROR).or_else(|| output.find("fatal error: "));
    at.map_or(output, |at| output[at..].lines().next().unwrap_or_default()).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use qus_core::hint;

    /// Messages of buildx with the drivers `docker` and `remote`, and of Docker's classic image store.
    const OBSERVED: [(&str, Fault); 38] = [
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
            Fault::ConnectionLost,
        ),
        (
            "write tcp 127.0.0.1:46684->127.0.0.1:5133: use of closed network connection",
            Fault::ConnectionLost,
        ),
        ("failed to do request: Head \"http://localhost:5135/v2/x/manifests/1\": EOF", Fault::ConnectionLost),
        ("Put \"http://localhost:5136/v2/x/manifests/1\": EOF", Fault::ConnectionLost),
        ("EOF", Fault::ConnectionLost),
        ("unexpected EOF", Fault::ConnectionLost),
        ("failed commit on ref \"\": unexpected digest: sha256:98e7 != sha256:bbbb", Fault::InvalidResponse),
        (
            "failed to do request: Head \"file:///etc/passwd\": unsupported protocol scheme \"file\"",
            Fault::InvalidResponse,
        ),
        ("failed to solve: DeadlineExceeded: context deadline exceeded", Fault::ConnectionLost),
        ("Get \"https://example.org/v2/\": net/http: TLS handshake timeout", Fault::ConnectionLost),
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
            Fault::PlainHttp,
        ),
        (
            "failed to solve: failed to push localhost:5100/x:1: failed to do request: Head \
             \"https://localhost:5100/v2/x/blobs/sha256:affb\": tls: first record does not look like a TLS handshake",
            Fault::PlainHttp,
        ),
        (
            "failed to solve: failed to push localhost:5140/x:1: unexpected status from POST request to \
             http://localhost:5140/v2/x/blobs/uploads/: 405 Method Not Allowed",
            Fault::Forbidden,
        ),
        ("failed to solve: write /var/lib/docker/tmp/x: no space left on device", Fault::DiskFull),
        (
            "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?",
            Fault::EngineGone,
        ),
        ("failed to solve: failed to read dockerfile: no such file or directory", Fault::Other),
    ];

    #[test]
    fn observed_messages_are_classified() {
        for (message, fault) in OBSERVED {
            let quick = format!("docker failed (exit status: 1): ERROR: {message}");
            let log = format!(
                "docker failed (exit status: 1); the end of log:\n    #5 0.720 error: 503 Service Unavailable\n    #5 0.720 \
                 retrying in 1s\n    #5 ERROR: x\n    ERROR: {message}"
            );
            for output in [quick, log] {
                assert_eq!(Fault::classify(&output), fault, "{output}");
            }
        }
    }

    #[test]
    fn an_error_has_operation_cause_and_hint() {
        let explain = |output: &str, attempts| {
            let fault = Fault::classify(output);
            hint::render(&fault.explain(anyhow!("{output}"), "building images", attempts, "ghcr.io/a/b"))
        };
        assert_eq!(
            explain("docker failed; the end of log:\n    #1 x\n    ERROR: y: 401 Unauthorized\n    z", 1),
            "error: building images: the registry requires a login: y: 401 Unauthorized\nhint: to log in, run `docker login \
             ghcr.io`\n"
        );
        let hub = Fault::Unauthorized.explain(anyhow!("ERROR: unauthorized"), "querying", 1, "some/body");
        assert_eq!(hint::of(&hub).as_deref(), Some("to log in, run `docker login docker.io`"));
        let memory =
            explain("docker failed: runtime: out of memory\nfatal error: out of memory\n\ngoroutine 1", 1);
        assert!(memory.contains("an invalid response: fatal error: out of memory\nhint: "), "{memory}");
        assert!(explain("docker failed: ERROR: EOF", 4).contains("the connection was lost, 4 times: EOF\n"));
        assert_eq!(
            explain("docker failed: what?", 1),
            "error: building images\n  caused by: docker failed: what?\n"
        );
    }
}
