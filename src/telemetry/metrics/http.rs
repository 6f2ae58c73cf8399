//! As much of HTTP/1.1 (RFC 9112) as a scrape needs: one request without a body, one reply, then the end of the
//! connection. Pure.

/// The longest request that is read, in bytes: Prometheus and curl send a few hundred.
pub const LONGEST: usize = 8 << 10;

/// What the bytes that have arrived so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// The beginning of a request, perhaps.
    More,
    /// A whole one.
    Whole {
        /// The path, without a query.
        path: String,
        /// Only the head of the reply is wanted.
        head: bool,
    },
    /// Something that gets this status.
    Refused(Status),
}

/// The statuses that are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 431.
    TooLarge,
    /// 503.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::TooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Reads what has arrived.
pub fn read(bytes: &[u8]) -> Reading {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let has_line = line.len() < bytes.len();
    // What cannot become a request is not waited for.
    if bytes.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
        return Reading::Refused(Status::BadRequest);
    }
    let is_whole = ends_head(bytes);
    if bytes.len() > LONGEST || (!is_whole && bytes.len() == LONGEST) {
        return Reading::Refused(Status::TooLarge);
    }
    if !has_line {
        return Reading::More;
    }
    let Some((method, target)) = request_line(line) else {
        return Reading::Refused(Status::BadRequest);
    };
    if !is_whole {
        return Reading::More;
    }
    let head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Reading::Refused(Status::MethodNotAllowed),
    };
    let path = target.split('?').next().unwrap_or(target).to_owned();
    Reading::Whole { path, head }
}

/// Whether the empty line is there that ends the head of a request.
fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|it| it == b"\r\n\r\n") || bytes.windows(2).any(|it| it == b"\n\n")
}

/// Method and target of `METHOD /target HTTP/1.x`.
fn request_line(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_suffix('\r').unwrap_or(line).split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_right = words.next().is_none()
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && target.starts_with('/')
        && matches!(version, "HTTP/1.0" | "HTTP/1.1");
    is_right.then_some((method, target))
}

/// A whole reply; of `body` only the length if `head`.
pub fn reply(status: Status, content_type: &str, body: &str, head: bool) -> Vec<u8> {
    let allow = match status {
        Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let mut reply = format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        status.line(),
        body.len()
    );
    if !head {
        reply.push_str(body);
    }
    reply.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_arrive() {
        let whole = |path: &str, head| Reading::Whole {
            path: path.to_owned(),
            head,
        };
        let request = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..request.len() {
            assert_eq!(read(&request[..length]), Reading::More, "{length}");
        }
        assert_eq!(read(request), whole("/metrics", false));
        assert_eq!(read(b"HEAD /x HTTP/1.0\n\n"), whole("/x", true));
        for (bytes, status) in [
            (&b"\x16\x03\x01"[..], Status::BadRequest),
            (b"get / HTTP/1.1\r\n", Status::BadRequest),
            (b"GET / HTTP/2\r\n", Status::BadRequest),
            (b"GET metrics HTTP/1.1\r\n", Status::BadRequest),
            (b"GET  / HTTP/1.1\r\n", Status::BadRequest),
            (b"GET /\xff HTTP/1.1\r\n", Status::BadRequest),
            (b"\r\n\r\n", Status::BadRequest),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Status::MethodNotAllowed),
            (&[b'A'; LONGEST], Status::TooLarge),
        ] {
            assert_eq!(read(bytes), Reading::Refused(status), "{bytes:?}");
        }
    }

    #[test]
    fn a_reply_says_how_long_it_is_and_that_it_is_the_last() {
        let text = String::from_utf8(reply(Status::Ok, "text/plain", "ok\n", false));
        let text = text.unwrap_or_default();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("Content-Length: 3\r\n") && text.contains("Connection: close\r\n"));
        assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
        assert!(reply(Status::Ok, "text/plain", "ok\n", true).ends_with(b"\r\n\r\n"));
    }
}
